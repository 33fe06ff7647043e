"""The bar passes on what it counts, and gives the terminal back however the work ends."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from brain_mri.pipelines import progress


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal gets to see."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "Console", lambda **options: console)
    return written


def test_nothing_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.progress_bar("Packing", 1, "files")(iter([{"files": 1}]))) == [{"files": 1}]
    assert capsys.readouterr().out == ""


def test_records_pass_and_are_counted(terminal: io.StringIO) -> None:
    records = [{"files": 2}, {"files": 1}]
    assert list(progress.progress_bar("Packing", 3, "files")(iter(records))) == records
    assert "Packing" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_what_was_there_already_is_no_work(terminal: io.StringIO) -> None:
    records = [{"files": 2, "fresh": False}, {"files": 1, "fresh": True}]
    assert list(progress.progress_bar("Packing", 3, "files")(iter(records))) == records
    assert "1/1" in terminal.getvalue()


def test_work_that_breaks_off_leaves_the_cursor_visible(terminal: io.StringIO) -> None:
    def broken() -> Iterator[dict[str, int]]:
        yield {"files": 1}
        raise OSError("a worker died")

    with pytest.raises(OSError, match="a worker died"):
        list(progress.progress_bar("Packing", 3, "files")(broken()))
    shown, hidden = "\x1b[?25h", "\x1b[?25l"
    assert terminal.getvalue().rfind(shown) > terminal.getvalue().rfind(hidden) >= 0
