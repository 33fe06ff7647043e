"""What people should read when a Spark job fails: one sentence with the file or the cause, not two stacks."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from contextlib import contextmanager

# An exception that a Python worker raised, as the last thing of its traceback: `type: message`.
_RAISED = re.compile(r"^(?P<type>[A-Za-z_][\w.]*): (?P<message>.*)", re.MULTILINE | re.DOTALL)
_LAST_FRAME = re.compile(r"^  File .*\n(?:    .*\n)*", re.MULTILINE)
_UNREADABLE = re.compile(r"\[FAILED_READ_FILE[.\w]*\].*?(?P<file>[a-z0-9]+:/\S+?)\.? ", re.DOTALL)
_REFUSED = re.compile(r"Call From \S+ to (?P<address>\S+) failed on connection exception")

_GIVEN_UP = "cancelled as part of cancellation of all jobs"  # by `watch_cluster`


class SparkJobError(RuntimeError):
    """A Spark job failed for a reason that lies in the data or the cluster, said in one sentence."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn what Spark raises inside the block into a sentence, where its cause is known.

    An error of storage or of this project that a task met is passed on as its message; a file that no node
    can give any more is named. A fault of the program keeps its stack.

    Raises:
        SparkJobError: The job failed for such a cause; what Spark raised is its `__cause__`.

    Example:
        >>> with explained():
        ...     frame.mapInArrow(write, "record string").collect()
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        # PySpark's own text leaves the causes out.
        sentence = find_sentence(str(error), getattr(error, "_stackTrace", ""))
        if sentence is None:
            raise
        raise SparkJobError(sentence) from error


def find_sentence(text: str, stack: str = "") -> str | None:
    """What of Spark's error text a person needs; None where only the whole of it tells what happened.

    Args:
        text: What Spark says.
        stack: The stack of its Java exception, with the causes.

    Example:
        >>> find_sentence("[FAILED_READ_FILE.NO_HINT] Error while reading file hdfs://a/b.parquet. SQLSTATE")
        'The content of hdfs://a/b.parquet cannot be read: …'
    """
    unreadable = _UNREADABLE.search(text)
    refused = _REFUSED.search(text + stack)
    if unreadable and refused:
        return (
            f"HDFS at {refused['address']} does not answer any more: its NameNode ended while Spark read "
            f"{unreadable['file']}. Start it again (here: `kedro cluster up`) and repeat the command with "
            "--only-missing-outputs; nothing is lost."
        )
    if unreadable:
        return (
            f"The content of {unreadable['file']} cannot be read: every copy of a part of it is missing or "
            "damaged, or it is no parquet file any more. `kedro cluster status` says whether DataNodes are "
            "down (start them again, nothing is lost then); otherwise remove the folder that holds the file "
            "and make it anew with the pipeline that writes it."
        )
    if _GIVEN_UP in text:
        return (
            "The Spark job was given up, since its cluster is gone. Start the cluster again (here: `kedro "
            "cluster up`) and repeat the command with --only-missing-outputs."
        )
    frames = list(_LAST_FRAME.finditer(text))
    raised = _RAISED.search(text, frames[-1].end()) if frames else None
    if raised and _is_written_for_people(raised["type"]):
        return raised["message"].strip()
    return None


def _is_written_for_people(name: str) -> bool:
    """Whether an exception of this name tells of data, storage or network and not of a fault in the code."""
    kind = getattr(builtins, name, None)
    is_environment = isinstance(kind, type) and issubclass(kind, OSError)
    return name.startswith("brain_mri.") or is_environment
