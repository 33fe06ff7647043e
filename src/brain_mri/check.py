"""What `kedro check` looks at: versions, the machine, the data source and Spark, each with a remedy.

Versions are read from the installed packages' metadata and compared with what `pyproject.toml` asks for, so a
check imports neither TensorFlow nor Spark.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from brain_mri.models.estimate import processor_cores
from brain_mri.spark.java import REMEDY as JAVA_REMEDY
from brain_mri.spark.java import find_java

DISTRIBUTION = "brain-mri"
PACKAGES = {
    "TensorFlow": "tensorflow",
    "PySpark": "pyspark",
    "NumPy": "numpy",
    "Pillow": "pillow",
    "scikit-learn": "scikit-learn",
    "Matplotlib": "matplotlib",
}
NEEDED_MEMORY_GIB = 6
NEEDED_DISK_GIB = 2

_GIB = 1024**3
_MARKS = {True: "✓", False: "✗", None: "–"}
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of Linux control groups, version 2
_INSTALL_REMEDY = "Install the locked versions: make install"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at, for example "TensorFlow".
        ok: whether it is as needed; None where it was not looked at because another check failed.
        found: what there is, in words.
        remedy: how to mend it; shown only if it is not ok.
    """

    name: str
    ok: bool | None
    found: str
    remedy: str


def run_checks(
    describe_source: Callable[[], str], run_spark_task: Callable[[], str], storage: str
) -> list[Check]:
    """Look at everything that a run needs.

    Args:
        describe_source: says in words which source a run would take and how it is laid out, or raises.
        run_spark_task: starts a session, runs one task and says in words what answered, or raises.
        storage: where results go: a folder, which need not exist yet and whose disk is looked at, or a URL.

    Returns:
        The checks in the order in which people want to read them; what one of them raises is its cross.

    Example:
        >>> checks = run_checks(lambda: "phantom", lambda: "local[2]", "data")  # doctest: +SKIP
        >>> print(format_checks(checks))  # doctest: +SKIP
    """
    return [
        check_python(),
        check_java(),
        *check_packages(importlib.metadata.requires(DISTRIBUTION) or []),
        check_cores(),
        check_memory(usable_memory()),
        check_disk(storage),
        attempt(
            "Data source", describe_source, "Name one: kedro run --params=ingestion.source=/path/to/scans"
        ),
        attempt("Spark", run_spark_task, f"See docs/installation.md, Troubleshooting. {JAVA_REMEDY}"),
    ]


def check_python() -> Check:
    """Compare the running Python with the project's `requires-python`."""
    version = platform.python_version()
    wanted = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    ok = SpecifierSet(wanted).contains(version, prereleases=True)
    remedy = "Make .venv anew with another: rm -r .venv; make install PYTHON=python3.12"
    return Check("Python", ok, version if ok else f"{version}, expected {wanted}", remedy)


def check_java() -> Check:
    """Find the Java that Spark would start."""
    return attempt("Java", lambda: "{0.version} from {0.origin}: {0.path}".format(find_java()), JAVA_REMEDY)


def check_packages(requirements: Iterable[str]) -> list[Check]:
    """Compare the installed versions of the main libraries with what the project asks for.

    Args:
        requirements: the project's requirements, as in its metadata, for example "tensorflow~=2.21.0".
    """
    wanted = {parsed.name.lower(): parsed.specifier for parsed in map(Requirement, requirements)}
    return [_check_package(name, package, wanted[package]) for name, package in PACKAGES.items()]


def check_cores() -> Check:
    """Count the cores that this process may use; one is enough, more are faster."""
    return Check("Cores", True, str(processor_cores()), "One is enough; more are faster.")


def usable_memory(container_limit: Path = _CONTAINER_LIMIT) -> int:
    """Return the machine's memory in bytes, or what a container may use of it.

    Args:
        container_limit: file in which Linux says so; outside a container there is none.
    """
    total = psutil.virtual_memory().total
    try:
        return min(total, int(container_limit.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def check_memory(total: int) -> Check:
    """Compare memory, in bytes, with what the default run takes at most."""
    found = f"{total / _GIB:.1f} GiB"
    ok = total >= NEEDED_MEMORY_GIB * _GIB
    remedy = "Close other programs, or give this machine, container or WSL more memory."
    return Check("Memory", ok, found if ok else f"{found}, expected {NEEDED_MEMORY_GIB} GiB", remedy)


def check_disk(storage: str) -> Check:
    """Look at the free space where the results go, if that is on this machine."""
    if "://" in storage:
        return Check("Disk", True, f"results go to {storage}; `kedro cluster check` looks there", "")
    folder = Path(storage).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB free in {folder}"
    ok = free >= NEEDED_DISK_GIB * _GIB
    remedy = f"Free some space in {folder}, or move the project to a larger disk."
    return Check("Disk", ok, found if ok else f"{found}, expected {NEEDED_DISK_GIB} GiB", remedy)


def attempt(name: str, action: Callable[[], str], remedy: str) -> Check:
    """Run `action`, which says in words what it found; whatever it raises becomes a failed check."""
    try:
        return Check(name, True, action(), remedy)
    except Exception as error:  # whatever it is, it is reported, and the other checks run
        return Check(name, False, str(error).strip() or type(error).__name__, remedy)


def format_checks(checks: Iterable[Check]) -> str:
    """Return the checks as lines for a terminal: tick or cross, name, what was found, remedy if needed.

    What was not looked at has a dash.
    """
    checks = list(checks)
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{_MARKS[check.ok]} {check.name:<{width}}  {_indented(check.found, width)}")
        if check.ok is False and check.remedy:
            lines.append(f"{'':<{width + 4}}→ {_indented(check.remedy, width)}")
    failed = sum(check.ok is False for check in checks)
    made = sum(check.ok is not None for check in checks)
    lines += ["", f"{failed} of {made} checks failed." if failed else f"All {made} checks passed."]
    return "\n".join(lines)


def _check_package(name: str, package: str, wanted: SpecifierSet) -> Check:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, f"not installed, expected {wanted}", _INSTALL_REMEDY)
    ok = wanted.contains(version, prereleases=True)
    return Check(name, ok, version if ok else f"{version}, expected {wanted}", _INSTALL_REMEDY)


def _indented(text: str, width: int) -> str:
    """Align the further lines of `text` below the first."""
    return text.replace("\n", "\n" + " " * (width + 4))
