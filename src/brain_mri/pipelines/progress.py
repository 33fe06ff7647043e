"""A progress bar for work whose results come as stats records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from brain_mri.spark.launchers import WithProgress


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        if not task.speed:
            return Text("")
        return Text(f"{task.speed:,.0f}/s" if task.speed >= 10 else f"{task.speed:.2g}/s")


def progress_bar(what: str, total: int, count: str) -> WithProgress:
    """A bar that moves as records pass, and is gone when they end, or break off.

    Records that say they are not `fresh` are of what was there already, and count for no rate.

    Args:
        what: Is being done.
        total: Of what is counted.
        count: Name of the number in each record, such as `files`.

    Returns:
        What passes an iterator of records on.

    Example:
        >>> list(progress_bar("Packing", 3, "files")(iter([{"files": 2}, {"files": 1}])))
        [{'files': 2}, {'files': 1}]
    """

    def show(records: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        # Standard output is for what a command prints.
        with Progress(*columns, transient=True, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)
            for record in records:
                if record.get("fresh", True):
                    bar.advance(task, record[count])
                else:
                    bar.update(task, total=(bar.tasks[0].total or 0) - record[count])
                yield record

    return show
