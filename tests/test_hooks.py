"""What the hooks leave when a run ends at the worst moment: between the save of an output and its record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from brain_mri.hooks import ProjectHooks, StaleOutputsError

REPOSITORY = Path(__file__).resolve().parents[1]
Run = Callable[..., None]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def run(tmp_path: Path, make_scans: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the first node of the project: `run(seed=1, killed_after_saving="source_files", resume=True)`."""
    source = make_scans(images=12)
    monkeypatch.setenv("BRAIN_MRI_STORAGE", str(tmp_path / "storage"))
    bootstrap_project(REPOSITORY)
    record = ProjectHooks.after_dataset_saved

    def start(*, seed: int = 1, killed_after_saving: str = "", resume: bool = False) -> None:
        @hook_impl
        def after_dataset_saved(self: ProjectHooks, dataset_name: str, data: Any, node: Any) -> None:
            if dataset_name == killed_after_saving:
                raise Killed
            record(self, dataset_name, data, node)

        monkeypatch.setattr(ProjectHooks, "after_dataset_saved", after_dataset_saved)
        parameters = {"ingestion": {"source": str(source), "seed": seed}}
        with KedroSession.create(REPOSITORY, runtime_params=parameters) as session:
            options: dict[str, Any] = {"node_names": ["list_scans"], "only_missing_outputs": resume}
            session.run(**options)

    return start


def test_an_output_that_was_saved_and_not_yet_recorded_is_built_upon(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(killed_after_saving="source_files")
    files = tmp_path / "storage" / "02_intermediate" / "source_files.parquet"
    assert files.is_file()
    assert not files.with_name("source_description.json").exists()
    run(resume=True)
    assert files.with_name("source_description.json").exists()


def test_an_output_that_replaced_another_and_was_not_yet_recorded_passes_for_neither(run: Run) -> None:
    run(seed=1)
    with pytest.raises(Killed):
        run(seed=2, killed_after_saving="source_files")
    for seed in (1, 2):
        with pytest.raises(StaleOutputsError, match="source_files"):
            run(seed=seed, resume=True)
    run(seed=2)
    run(seed=2, resume=True)
