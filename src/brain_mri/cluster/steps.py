"""Steps that stand on earlier ones, and waiting that ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from brain_mri.check import Check, attempt

WAIT_SECONDS = 60

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Step:
    """Something to look at.

    Attributes:
        name: what it is, for example "NameNode".
        action: says in words what it found, or raises.
        remedy: how to mend it.
        needs: names of earlier steps without which this one makes no sense.
    """

    name: str
    action: Callable[[], str]
    remedy: str
    needs: tuple[str, ...] = ()


def run_steps(steps: Iterable[Step]) -> list[Check]:
    """Take the steps in order; one whose needs have not all passed is not tried, and its `ok` is None.

    Example:
        >>> [check.found for check in run_steps([Step("NameNode", lambda: "answers", "Start it.")])]
        ['answers']
    """
    checks: dict[str, Check] = {}
    for step in steps:
        failed = [need for need in step.needs if not checks[need].ok]
        if failed:
            checks[step.name] = Check(step.name, None, f"not tried; it needs: {failed[0]}", "")
        else:
            checks[step.name] = attempt(step.name, step.action, step.remedy)
    return list(checks.values())


def within(action: Callable[[], _Result], complaint: str, seconds: float = WAIT_SECONDS) -> _Result:
    """Run what may wait for ever, and give up on it.

    Args:
        action: Something that goes through Spark.
        complaint: What has not happened, where it does not end.
        seconds: How long it may take.

    Raises:
        TimeoutError: It did not end in time; its thread is left behind, and ends with the process.
        RuntimeError: What went wrong inside the JVM, without the stack.
    """
    from py4j.protocol import Py4JError

    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = action()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"{complaint} within {seconds:.0f} s")
    error = outcome.get("error")
    if isinstance(error, Py4JError):
        error = RuntimeError(str(error).partition("\n\tat ")[0])
    if error is not None:
        raise error
    result: _Result = outcome["result"]
    return result
