"""What is tried again, and for how long."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from brain_mri.storage import retry
from brain_mri.storage.faults import StorageError
from brain_mri.storage.retry import no_repeats, retried


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE", 0.004)
    monkeypatch.setattr(retry, "_announced", {"at": -1000.0})


class Storage:
    """Fails as often as it has errors, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors: Iterator[Exception] = iter(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        for error in self.errors:
            raise error
        return "answer"


def test_what_comes_back_is_waited_for_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    storage = Storage(*(StorageError("NameNode restarts", 5.0) for _ in range(4)))
    with caplog.at_level(logging.INFO):
        assert retried(storage, "x") == "answer"
        assert retried(Storage(StorageError("NameNode restarts", 5.0)), "y") == "answer"
    assert storage.calls == 5
    assert [record.getMessage() for record in caplog.records] == ["Trying again for 5 s: NameNode restarts"]


@pytest.mark.parametrize(
    "error",
    [
        StorageError("safe mode"),
        FileNotFoundError("x"),
        PermissionError("x"),
        OSError(28, "No space left on device"),
        RuntimeError("a programming error"),
    ],
)
def test_what_does_not_come_back_is_not_repeated(error: Exception) -> None:
    storage = Storage(error)
    with pytest.raises(type(error)):
        retried(storage, "x")
    assert storage.calls == 1


def test_a_fault_that_does_not_come_back_ends_the_waiting_for_another() -> None:
    storage = Storage(StorageError("NameNode restarts", 5.0), StorageError("permission"))
    with pytest.raises(StorageError, match="permission"):
        retried(storage, "x")
    assert storage.calls == 2


def test_patience_ends_and_does_not_begin_anew_further_out() -> None:
    storage = Storage(*(StorageError("gone", 0.05) for _ in range(10_000)))
    begin = time.monotonic()
    with pytest.raises(StorageError, match="gone"):
        retried(lambda: retried(storage, "inner"), "outer")
    assert 0.05 < time.monotonic() - begin < 1
    assert storage.calls > 5


def test_patience_counts_from_the_end_of_the_first_attempt() -> None:
    def slow() -> str:
        time.sleep(0.06)  # longer than the patience
        return storage()

    storage = Storage(StorageError("a DataNode was lost", 0.05))
    assert retried(slow, "x") == "answer"


def test_nothing_is_repeated_where_someone_waits() -> None:
    storage = Storage(StorageError("NameNode restarts", 5.0))
    with no_repeats(), pytest.raises(StorageError):
        retried(storage, "x")
    assert storage.calls == 1
    assert retried(Storage(StorageError("NameNode restarts", 5.0)), "x") == "answer"
