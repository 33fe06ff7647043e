"""The project's commands as people type them: sentences instead of stacks, and a static site."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from kedro.io import AbstractDataset, DatasetError

from brain_mri import cli
from brain_mri.cohort.classes import ClassSet, ClassSetError
from brain_mri.cohort.split import SplitError, assign_splits

REPOSITORY = Path(__file__).resolve().parents[1]


class Broken(AbstractDataset[None, None]):
    """A dataset whose load raises what it is given."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def load(self) -> None:
        raise self._error

    def save(self, data: None) -> None:
        raise self._error

    def _describe(self) -> dict[str, str]:
        return {}


def too_few() -> None:
    assign_splits(["cyst", "glioma"], [0, 1], ["a", "b"])


def show(action: Callable[[], object]) -> str:
    """What the user sees of an action that fails."""

    @click.command()
    @cli._errors_for_people
    def command() -> None:
        action()

    result = CliRunner().invoke(command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 1
    return result.output


def test_errors_that_are_sentences_come_without_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(too_few).startswith("Error: Class 'cyst' has 1 groups of scans")
    assert show(lambda: ClassSet(("one",))).startswith("Error: A class set needs at least two classes")
    assert "disk is full" in show(Broken(OSError("disk is full")).load)
    assert "Class 'cyst'" in show(Broken(SplitError("Class 'cyst' has 1 groups")).load)
    assert show(Broken(DatasetError("Save through @spark.")).load) == "Error: Save through @spark.\n"
    monkeypatch.setenv(cli.TRACEBACK_VARIABLE, "1")
    with pytest.raises(SplitError):
        show(too_few)
    with pytest.raises(ClassSetError):
        show(lambda: ClassSet(("one",)))


def test_faults_of_the_program_keep_their_stack() -> None:
    with pytest.raises(ZeroDivisionError):
        show(lambda: 1 // 0)
    with pytest.raises(DatasetError):
        show(Broken(TypeError("int is not callable")).load)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's code and configuration, with nothing in its storage."""
    folder = tmp_path / "project"
    for name in ("conf", "src"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def kedro(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder, without a Java and a storage root of the machine."""
    unset = ("JAVA_HOME", "BRAIN_MRI_STORAGE")
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-m", "kedro", *words],
        cwd=project,
        env={**variables, "PATH": "", "XDG_CACHE_HOME": str(project / "cache"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_mistyped_parameter_is_a_sentence(project: Path, command: str) -> None:
    parameters = project / "conf" / "local" / "parameters.yml"
    parameters.write_text("training: {bakbone: compact}\n", encoding="utf-8")
    result = kedro(project, command)
    assert result.returncode == 1
    assert "Error: Unknown parameter training.bakbone: did you mean training.backbone?" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_report_of_a_cluster_that_is_not_there_is_a_sentence(project: Path) -> None:
    result = kedro(project, "report", BRAIN_MRI_STORAGE="hdfs://127.0.0.1:1/nowhere")
    assert result.returncode == 1
    assert "Error: hdfs://127.0.0.1:1/nowhere/08_reporting/report.html cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_download_over_existing_data_is_a_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.download, ["--target", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {tmp_path} is there already.")


def test_kedro_viz_builds_a_static_site_without_java(project: Path) -> None:
    result = kedro(project, "viz", "build", "--include-previews", "--include-hooks")
    assert result.returncode == 0, result.stderr[-3000:]
    assert not (project / "cache" / "brain-mri").exists(), (
        "a JVM of the wheel would have been started from there"
    )
    assert "<html" in (project / "build" / "index.html").read_text(encoding="utf-8")
    assert "train_network" in (project / "build" / "api" / "main").read_text(encoding="utf-8")
