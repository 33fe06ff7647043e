from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from brain_mri.datasets.scores import Scores
from brain_mri.datasets.versions import FolderVersion, VersionedFolderDataset
from brain_mri.imaging.phantom import write_phantom_folder
from brain_mri.pipelines.inference import nodes
from brain_mri.pipelines.inference.parameters import InferenceParameters
from brain_mri.pipelines.ingestion.parameters import IngestionParameters
from brain_mri.spark.launchers import ProcessLauncher, SparkLauncher

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
CONF = Path(__file__).resolve().parents[3] / "conf" / "base"
INGESTION = IngestionParameters.model_validate(
    yaml.safe_load((CONF / "parameters_ingestion.yml").read_text())["ingestion"]
)


@pytest.fixture
def version(tmp_path: Path) -> FolderVersion:
    dataset = VersionedFolderDataset(filepath=str(tmp_path / "classifier"))
    dataset.save({"recipe.json": json.dumps({"classes": CLASSES}).encode()})
    return dataset.load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    write_phantom_folder(folder, images=40, seed=1, processes=1)
    (folder / "glioma" / ".DS_Store").write_bytes(b"")
    (folder / "new").mkdir()
    (folder / "new" / "unknown.jpg").write_bytes(b"no picture")
    return folder


def test_files_of_any_depth_are_listed_with_the_class_that_their_folder_names(
    version: FolderVersion, folder: Path
) -> None:
    plan = nodes.plan_scoring(version, INGESTION, InferenceParameters(source=str(folder)))
    assert len(plan.files) == 41
    assert plan.classes == CLASSES
    labels = plan.files.set_index("path")["label"]
    assert pd.isna(labels[f"{folder}/new/unknown.jpg"])
    assert all(label == path.split("/")[-2] for path, label in labels.dropna().items())
    assert labels.notna().sum() == 40
    assert all(Path(url).is_file() for url in plan.files["url"])


def test_nothing_is_passed_over(folder: Path, tmp_path: Path) -> None:
    around = nodes.list_source(f"{tmp_path}/")  # drawn scans lie below it
    assert len(around) == 41
    odd = os.fsdecode(os.fsencode(folder) + b"/M\xe9.jpg")
    Path(odd).write_bytes(b"no picture")
    (alone,) = nodes.list_source(odd).to_dict("records")
    assert alone["path"] == f"{folder}/M\\xe9.jpg"
    assert alone == nodes.list_source(str(folder)).set_index("path", drop=False).loc[alone["path"]].to_dict()


def test_several_sources_are_scored_together_and_no_file_twice(version: FolderVersion, folder: Path) -> None:
    one = sorted((folder / "glioma").glob("*.jpg"))[0]
    plan = nodes.plan_scoring(
        version,
        INGESTION,
        InferenceParameters(source=(str(one), str(folder / "glioma"), str(folder / "new"))),
    )
    assert plan.files["path"][0] == str(one)
    assert len(plan.files) == len(list((folder / "glioma").glob("*.jpg"))) + 1
    assert plan.files["url"].is_unique


@pytest.mark.parametrize("source", [None, "nowhere", "empty"])
def test_nothing_to_score_is_said_to_be_so(
    version: FolderVersion, tmp_path: Path, source: str | None
) -> None:
    (tmp_path / "empty").mkdir()
    named = str(tmp_path / source) if source else None
    with pytest.raises(nodes.NoFilesError, match=r"kedro predict PATH|no file or folder at|no files in"):
        nodes.plan_scoring(version, INGESTION, InferenceParameters(source=named))


def test_spark_scores_what_it_can_read_and_what_is_worth_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.session, "is_local", lambda: True)
    assert isinstance(nodes.choose_launcher(65, shared=False), SparkLauncher)
    assert isinstance(nodes.choose_launcher(1, shared=True), SparkLauncher)
    assert nodes.choose_launcher(64, shared=False) == ProcessLauncher(workers=1)
    monkeypatch.setattr(nodes.session, "is_local", lambda: False)
    assert nodes.choose_launcher(65, shared=False) == ProcessLauncher()


def test_scores_of_known_classes_are_measured_and_others_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame(
        {
            "label": ["glioma", "glioma", "notumor", None, "pituitary"],
            "status": ["scored"] * 4 + ["refused"],
            "abstained": [False, True, False, False, None],
            **{f"probability_{name}": np.array([0.1] * 4 + [np.nan]) for name in CLASSES},
        }
    )
    rows.loc[[0, 1, 2], ["probability_glioma", "probability_meningioma", "probability_notumor"]] = [
        [0.7, 0.1, 0.1],
        [0.1, 0.7, 0.1],
        [0.1, 0.1, 0.7],
    ]
    monkeypatch.setattr(Scores, "summary", {"classes": list(CLASSES)})
    monkeypatch.setattr(Scores, "to_pandas", lambda self, columns: rows[columns])
    found = nodes.measure_scores(Scores("/nowhere"))
    assert found["files"] == 3
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["recall_glioma"] == 0.5
    assert found["recall_pituitary"] is None
    assert (found["coverage"], found["accuracy_answered"]) == (pytest.approx(2 / 3), 1.0)
    assert found["confusion_matrix"][0] == [1, 1, 0, 0]
    rows["label"] = None
    assert nodes.measure_scores(Scores("/nowhere")) == {}


def test_parameters_in_the_file_are_the_defaults() -> None:
    given = yaml.safe_load((CONF / "parameters_inference.yml").read_text())["inference"]
    assert InferenceParameters(**given) == InferenceParameters()
