from __future__ import annotations

from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener

import pytest

from brain_mri.models.reports import ReportDesk, open_report


def test_trials_report_to_the_desk_if_they_know_its_key() -> None:
    heard: list[tuple[str, int, float]] = []

    def decide(name: str, step: int, value: float) -> bool:
        heard.append((name, step, value))
        return value > 0.5

    listener = Listener(("127.0.0.1", 0))
    desk = ReportDesk(listener, b"key", decide)
    with pytest.raises(AuthenticationError):
        open_report(listener.address, b"another", "trial 1")
    first, second = (open_report(listener.address, b"key", f"trial {number}") for number in (1, 2))
    assert first(1, 0.75)
    assert not second(1, 0.25)
    assert first(2, 0.8)
    assert heard == [("trial 1", 1, 0.75), ("trial 2", 1, 0.25), ("trial 1", 2, 0.8)]
    address = listener.address
    desk.close()
    with pytest.raises((EOFError, OSError)):
        open_report(address, b"key", "trial 3")
