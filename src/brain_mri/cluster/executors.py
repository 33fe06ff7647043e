"""What every executor of a Spark application is asked: where it is, what it has, whether it can write."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkContext

# What tasks import, by the name under which it is installed.
PACKAGES = {
    "brain-mri": "brain_mri",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "pyspark": "pyspark",
    "opencv": "cv2",
    "fsspec": "fsspec",
    "hdfs-native": "hdfs_native",
}
SECONDS_FOR_ALL = 8


@dataclass(frozen=True)
class Answer:
    """What a Python worker found.

    Attributes:
        host: its name.
        executor: the executor's working folder, which no other executor on the host has.
        versions: of Python and of `PACKAGES`; "missing" with the reason where one cannot be imported. Of this
            package also a fingerprint of its source.
        refusal: why it cannot write, read and delete below the storage root; empty where it can.
        filesystem: the default filesystem that its Hadoop configuration names; empty where there is none.
    """

    host: str
    executor: str
    versions: dict[str, str]
    refusal: str
    filesystem: str = ""


def ask_executors(context: SparkContext, storage: str, expected: int) -> list[Answer]:
    """Run tasks until every executor has answered.

    Args:
        context: Of the running session.
        storage: The storage root, below which each executor writes, reads and deletes a small file.
        expected: Number of executors that should come; they are waited for `SECONDS_FOR_ALL` at most.

    Returns:
        An answer each.

    Raises:
        RuntimeError: Some that are registered did not answer.
    """
    answers: dict[tuple[str, str], Answer] = {}
    survey = _make_survey(storage)
    slots = context.defaultParallelism
    deadline = time.monotonic() + SECONDS_FOR_ALL
    while True:
        for values in context.parallelize(range(slots), slots).map(survey).collect():
            answers[values[0], values[1]] = Answer(*values)
        registered = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1  # one is the driver's
        if len(answers) >= max(registered, expected):
            break
        if time.monotonic() > deadline:
            if len(answers) < registered:
                raise RuntimeError(f"{len(answers)} of {registered} executors answer")
            break
        slots = max(context.defaultParallelism, 2 * registered)
    return list(answers.values())


def answer_here() -> Answer:
    """What the driver itself finds; storage is not tried."""
    return Answer(*_make_survey("")(0))


def _make_survey(storage: str) -> Callable[[int], tuple[str, str, dict[str, str], str, str]]:
    packages = dict(PACKAGES)

    # Spark sends a nested function by value: it runs where this package is not installed, and can say so.
    def survey(_: int) -> tuple[str, str, dict[str, str], str, str]:
        import hashlib
        import importlib
        import importlib.metadata
        import platform
        import socket
        import time
        from pathlib import Path

        versions = {"python": ".".join(platform.python_version_tuple()[:2])}
        for name, module in packages.items():
            try:
                loaded = importlib.import_module(module)
                versions[name] = getattr(loaded, "__version__", "") or importlib.metadata.version(name)
                if name == "brain-mri":
                    source = hashlib.sha256()
                    for path in sorted(Path(loaded.__path__[0]).rglob("*.py")):
                        source.update(path.read_bytes())
                    versions[name] += f" ({source.hexdigest()[:8]})"
            except Exception as error:
                versions[name] = f"missing: {error}"
        refusal = filesystem = ""
        if storage:
            try:
                filesystem = importlib.import_module("brain_mri.storage.hadoop").default_filesystem() or ""
                importlib.import_module("brain_mri.storage.reach").check_reachable(storage)
            except Exception as error:
                refusal = str(error) or type(error).__name__
            time.sleep(0.2)  # long enough for the other tasks to go to other executors
        return socket.gethostname(), str(Path.cwd()), versions, refusal, filesystem

    return survey
