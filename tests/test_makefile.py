"""What `make run` does besides `kedro run`: its recipe, with a Python that only notes what it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and an installation that counts as up to date."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{sys.executable}\nimport sys\nprint('python', *sys.argv[1:], file=open('words', 'a'))\n"
    )
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def make(folder: Path, *words: str, **variables: str) -> tuple[list[str], str]:
    """What Python was asked for, command by command, and what was printed."""
    cleared = {"HADOOP_CONF_DIR", "KEDRO_ENV", "BRAIN_MRI_STORAGE", "MAKEFLAGS", "MAKELEVEL"}
    inherited = {name: value for name, value in os.environ.items() if name not in cleared}
    environment = {**inherited, **variables}
    answer = subprocess.run(
        ["make", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return (folder / "words").read_text().splitlines(), answer.stdout


def test_a_run_on_the_cluster_starts_one_and_says_how_to_stop_it(checkout: Path) -> None:
    asked, said = make(checkout, "run", "ENV=cluster", "PARAMS=training.epochs=2")
    assert asked == [
        "python -m kedro cluster up",
        "python -m kedro run --env=cluster --params=training.epochs=2",
    ]
    assert ".venv/bin/kedro cluster down stops it" in said
    assert ".venv/bin/kedro report --env=cluster" in said


def test_a_cluster_of_the_user_s_own_is_used_and_none_is_started(checkout: Path) -> None:
    asked, said = make(checkout, "run", "ENV=cluster", HADOOP_CONF_DIR="/etc/hadoop/conf")
    assert asked == ["python -m kedro run --env=cluster"]
    assert "cluster down" not in said


def test_a_local_run_starts_no_cluster_and_says_where_the_report_is(checkout: Path) -> None:
    asked, said = make(checkout, "run")
    assert asked == ["python -m kedro run"]
    assert f"Report: {checkout}/data/08_reporting/report.html" in said
