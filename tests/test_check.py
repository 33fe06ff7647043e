"""`kedro check` reports what a run needs, with a tick or a cross and a remedy."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from brain_mri.check import (
    Check,
    attempt,
    check_disk,
    check_memory,
    check_packages,
    check_python,
    format_checks,
    run_checks,
    usable_memory,
)

REQUIREMENTS = [
    "tensorflow>=1",
    "pyspark>=1",
    "numpy<1.0 ; python_version >= '3'",
    "pillow>=1",
    "scikit-learn>=1",
    "matplotlib>=1",
]


def refuse() -> str:
    raise FileNotFoundError("no folder /nowhere")


def test_a_version_outside_the_project_s_range_is_a_cross() -> None:
    checks = {check.name: check for check in check_packages(REQUIREMENTS)}
    assert checks["Matplotlib"].ok
    assert not checks["NumPy"].ok
    assert checks["NumPy"].found == f"{np.__version__}, expected <1.0"
    assert checks["NumPy"].remedy == "Install the locked versions: make install"


def test_a_missing_package_is_a_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain_mri.check.PACKAGES", {"Nothing": "no-such-distribution"})
    (check,) = check_packages(["no-such-distribution>=2"])
    assert (check.ok, check.found) == (False, "not installed, expected >=2")


def test_too_little_memory_is_a_cross() -> None:
    assert check_memory(8 * 1024**3) == Check("Memory", True, "8.0 GiB", check_memory(0).remedy)
    assert check_memory(2 * 1024**3).found == "2.0 GiB, expected 6 GiB"
    assert not check_memory(2 * 1024**3).ok


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_found(tmp_path: Path) -> None:
    assert str(tmp_path) in check_disk(str(tmp_path / "data" / "later")).found


def test_the_disk_of_a_cluster_is_not_mistaken_for_this_one() -> None:
    check = check_disk("hdfs:///user/ada/brain_mri")
    assert check.ok
    assert check.found == "results go to hdfs:///user/ada/brain_mri; `kedro cluster check` looks there"


def test_a_container_has_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    machine = usable_memory(tmp_path / "no such file")
    limit = tmp_path / "memory.max"
    for text, expected in (("max\n", machine), ("1048576\n", 2**20), (f"{2**60}\n", machine)):
        limit.write_text(text)
        assert usable_memory(limit) == expected


def test_what_is_raised_becomes_a_cross_and_the_rest_goes_on() -> None:
    assert attempt("Data source", refuse, "Name one") == Check(
        "Data source", False, "no folder /nowhere", "Name one"
    )


def test_the_text_shows_a_remedy_below_every_cross() -> None:
    text = format_checks(
        [Check("Java", True, "17.0.15", "unused"), Check("Spark", False, "line\nline", "do this")]
    )
    assert text.splitlines() == [
        "✓ Java   17.0.15",
        "✗ Spark  line",
        "         line",
        "         → do this",
        "",
        "1 of 2 checks failed.",
    ]


def test_what_was_not_looked_at_has_a_dash_and_is_neither_passed_nor_failed() -> None:
    checks = [Check("A", False, "is down", "start it"), Check("B", None, "not looked at: needs A", "")]
    lines = format_checks(checks).splitlines()
    assert lines == [
        "✗ A  is down",
        "     → start it",
        "– B  not looked at: needs A",
        "",
        "1 of 1 checks failed.",
    ]
    assert format_checks([checks[1]]).splitlines()[-1] == "All 0 checks passed."


def test_everything_named_is_looked_at_and_one_cross_stops_nothing(tmp_path: Path) -> None:
    try:
        importlib.metadata.version("brain-mri")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("brain-mri is not installed in this environment: make install")
    checks = run_checks(refuse, lambda: "local[1] answered", str(tmp_path))
    assert [check.name for check in checks] == [
        "Python", "Java", "TensorFlow", "PySpark", "NumPy", "Pillow", "scikit-learn", "Matplotlib",
        "Cores", "Memory", "Disk", "Data source", "Spark",
    ]  # fmt: skip
    assert not next(check for check in checks if check.name == "Data source").ok
    assert checks[-1].found == "local[1] answered"
    assert check_python() == checks[0]
