from __future__ import annotations

from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener

import pytest

from brain_mri.models.questions import Asker, Desk


def test_who_knows_the_key_is_answered_until_the_desk_is_closed() -> None:
    heard: list[tuple[str, float]] = []

    def decide(name: str, value: float) -> bool:
        heard.append((name, value))
        return value > 0.5

    listener = Listener(("127.0.0.1", 0))
    address = listener.address
    desk = Desk(listener, b"key", {"report": decide, "double": lambda value: 2 * value})
    with pytest.raises(AuthenticationError):
        Asker(address, b"another")
    first, second = Asker(address, b"key"), Asker(address, b"key")
    assert first("report", "trial 1", 0.75)
    assert not second("report", "trial 2", 0.25)
    assert first("double", 4) == 8
    assert heard == [("trial 1", 0.75), ("trial 2", 0.25)]
    desk.close()
    with pytest.raises((EOFError, OSError)):
        Asker(address, b"key")
