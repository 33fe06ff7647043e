"""Ingestion from a messy folder, from a table and from phantoms: every file accounted for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DatasetError

from brain_mri.cohort.layout import SourceLayoutError
from brain_mri.cohort.manifest import COLUMNS, EmptyClassError, TooManyRefusedError, check_manifest
from brain_mri.datasets import (
    EarlierTableDataset,
    OptionalJsonDataset,
    OriginalFilesDataset,
    PackedScansDataset,
    TableDataset,
)
from brain_mri.datasets.source import RawFolder
from brain_mri.imaging.inspect import inspect_scan
from brain_mri.pipelines.ingestion import nodes
from brain_mri.pipelines.ingestion.parameters import IngestionParameters
from brain_mri.spark.launchers import ProcessLauncher
from tests.cohort.looks import faces
from tests.imaging.hostile import hostile_files

REPOSITORY = Path(__file__).resolve().parents[3]
LIGHT = {"without": ["thumbnail"]}
DEFAULTS = yaml.safe_load((REPOSITORY / "conf/base/parameters_ingestion.yml").read_text())["ingestion"]


def _parameters(**changes: Any) -> IngestionParameters:
    return IngestionParameters.model_validate({**DEFAULTS, **changes})


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 48), dtype=np.uint8)
    return _png(pixels)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of twelve scans each, named as people name them."""
    source = tmp_path / "scans"
    for number in range(12):
        _write(source / "Glioma_Tumor" / f"scan {number}.png", _picture(number))
        _write(source / "no tumor" / f"ä {number}.png", _picture(100 + number))
    return source


@pytest.fixture
def ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the nodes in turn, in this process, and return what they made."""
    monkeypatch.setattr(nodes, "ProcessLauncher", lambda: ProcessLauncher(workers=1))

    def run(**changes: Any) -> dict[str, Any]:
        parameters = _parameters(**changes)
        described = OptionalJsonDataset(filepath=str(tmp_path / "split_metadata.json"))
        before = EarlierTableDataset(filepath=str(tmp_path / "manifest.parquet"), load_args=LIGHT).load()
        raw = RawFolder(str(tmp_path / "01_raw"))
        files, description = nodes.list_scans(raw, described.load(), parameters)
        dataset = PackedScansDataset(filepath=str(tmp_path / "scans.parquet"))
        dataset.save(nodes.pack_scans(files, description, before, parameters))
        scans = dataset.load()
        originals = OriginalFilesDataset(filepath=str(tmp_path / "original_files"))
        originals.save(nodes.keep_originals(files, description, parameters))
        decided, metadata = nodes.decide_splits(files, scans, description, before, parameters)
        table = TableDataset(filepath=str(tmp_path / "manifest.parquet"), load_args=LIGHT)
        table.save(nodes.check_table(decided))
        described.save(metadata)
        manifest = table.load()
        quarantine = TableDataset(filepath=str(tmp_path / "quarantine.parquet"))
        quarantine.save(nodes.collect_quarantine(manifest, scans))
        return {
            "files": files,
            "manifest": check_manifest(manifest),
            "metadata": metadata,
            "quarantine": quarantine.load(),
            "originals": originals.load(),
            "exploration": nodes.explore(manifest, metadata)[0],
        }

    return run


def test_a_folder_becomes_a_manifest_with_splits(folder: Path, ingest: Callable[..., Any]) -> None:
    result = ingest(source=str(folder))
    manifest = result["manifest"]
    assert set(manifest["label"]) == {"glioma", "notumor"}
    assert manifest["split"].value_counts().to_dict() == {"train": 16, "validation": 4, "test": 4}
    source = result["metadata"]["source"]
    assert (source["kind"], source["synthetic"], source["files"]) == ("folder", False, 24)
    assert source["missing_classes"] == ["meningioma", "pituitary"]
    assert result["metadata"]["classes"] == ["glioma", "notumor"]
    assert result["exploration"]["class_weights"] == {"glioma": 1.0, "notumor": 1.0}
    json.dumps([result["metadata"], result["exploration"]])


@pytest.mark.parametrize("together", [False, True])
def test_mirror_images_are_kept_together_where_they_shall_be(
    folder: Path, ingest: Callable[..., Any], tmp_path: Path, together: bool
) -> None:
    """Of the folder first, then of a further one that is added."""
    heads = dict(zip("abc", faces(3, seed=1, side=96), strict=True))
    for name, head in heads.items():
        _write(folder / "Glioma_Tumor" / f"{name}.png", _png(head))
        _write(folder / "Glioma_Tumor" / f"{name} mirrored.png", _png(head[:, ::-1]))
    manifest = ingest(source=str(folder), mirrored_copies=together)["manifest"]
    group = manifest.set_index(manifest["path"].str.rsplit("/").str[-1])["duplicate_group"]
    assert [group[f"{name}.png"] == group[f"{name} mirrored.png"] for name in heads] == [together] * 3

    _write(tmp_path / "more" / "glioma" / "a half turned.png", _png(heads["a"][::-1, ::-1]))
    manifest = ingest(source=str(tmp_path / "more"), append=True, mirrored_copies=together)["manifest"]
    group = manifest.set_index(manifest["path"].str.rsplit("/").str[-1])["duplicate_group"]
    assert (group["a half turned.png"] == group["a.png"]) == together
    with pytest.raises(nodes.MixedSourcesError, match=f"mirrored_copies={str(together).lower()}: groups"):
        ingest(source=str(tmp_path / "more"), append=True, mirrored_copies=not together)


def test_hostile_files_end_in_quarantine_with_reason_and_bytes(
    folder: Path, ingest: Callable[..., Any]
) -> None:
    hostile = {file.name: file for file in hostile_files()}
    for name, file in hostile.items():
        _write(folder / "Glioma_Tumor" / name, file.content)
    (folder / "Glioma_Tumor" / "loop").symlink_to(folder)
    quarantine = ingest(source=str(folder), max_refused_share=0.9)["quarantine"]
    found = {Path(row.path).name: (row.reason, row.content) for row in quarantine.itertuples()}
    refused = {name: (file.reason, file.content) for name, file in hostile.items() if file.reason}
    assert len(refused) > 8
    assert found == refused


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_quarantined(folder: Path, ingest: Callable[..., Any]) -> None:
    (folder / "Glioma_Tumor" / "scan 3.png").chmod(0)
    quarantine = ingest(source=str(folder))["quarantine"]
    assert quarantine[["path", "reason"]].to_numpy().tolist() == [["Glioma_Tumor/scan 3.png", "unreadable"]]


def test_too_many_refusals_stop_the_run(folder: Path, ingest: Callable[..., Any]) -> None:
    for number in range(12):
        _write(folder / "glioma" / f"broken {number}.jpg", b"no picture")
    with pytest.raises(TooManyRefusedError, match=r"12 of 36 .* not_an_image 12"):
        ingest(source=str(folder))


def test_a_class_of_which_nothing_is_left_stops_the_run(folder: Path, ingest: Callable[..., Any]) -> None:
    for number in range(3):
        _write(folder / "pituitary" / f"{number}.jpg", b"no picture")
    with pytest.raises(EmptyClassError, match=r"left of: pituitary\. Refused were: not_an_image 3"):
        ingest(source=str(folder))


def test_contradicting_labels_are_quarantined_with_their_bytes(
    folder: Path, ingest: Callable[..., Any]
) -> None:
    _write(folder / "no tumor" / "wrong.png", _picture(3))
    quarantine = ingest(source=str(folder))["quarantine"]
    assert quarantine["path"].tolist() == ["Glioma_Tumor/scan 3.png", "no tumor/wrong.png"]
    assert quarantine["content"].tolist() == [_picture(3)] * 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_names_files_labels_and_patients(
    folder: Path, suffix: str, ingest: Callable[..., Any]
) -> None:
    rows = [
        (f"Glioma_Tumor/scan {n}.png", "glioma", f"p{n // 2}") for n in range(12)
    ] + [(f"no tumor/ä {n}.png", "healthy", f"q{n // 2}") for n in range(12)]  # fmt: skip
    table = pd.DataFrame([*rows, ("gone.png", "glioma", None)], columns=["Path", "Label", "Patient"])
    path = folder / f"scans.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    manifest = ingest(source=str(path))["manifest"]
    assert manifest[manifest["status"] != "accepted"][["path", "reason"]].to_numpy().tolist() == [
        ["gone.png", "unreadable"]
    ]
    assert manifest["duplicate_group"].nunique() == 12
    assert manifest.groupby("patient")["split"].nunique().max() == 1


def test_an_official_test_half_is_kept(folder: Path, tmp_path: Path, ingest: Callable[..., Any]) -> None:
    for number in range(12):
        part = "Testing" if number < 3 else "Training"
        _write(tmp_path / "official" / part / "glioma" / f"{number}.png", _picture(number))
        _write(tmp_path / "official" / part / "notumor" / f"{number}.png", _picture(100 + number))
    _write(tmp_path / "official" / "Training" / "glioma" / "leak.png", _picture(0))
    result = ingest(source=str(tmp_path / "official"), test_split="official")
    test = result["manifest"].query("split == 'test'")
    assert test["path"].str.startswith("Testing").all()
    assert set(test["scan_id"]) == set(
        result["manifest"].loc[result["manifest"]["path"].str.startswith("Testing"), "scan_id"]
    )
    training = result["manifest"].query("split == 'train' or split == 'validation'")
    assert not set(training["duplicate_group"]) & set(test["duplicate_group"])


def test_phantoms_stand_in_where_there_is_nothing_else(ingest: Callable[..., Any]) -> None:
    result = ingest(phantom={"images": 120, "seed": 3})
    assert result["metadata"]["source"]["synthetic"]
    assert len(result["manifest"]) == 120
    statuses = result["manifest"]["status"].value_counts()
    assert statuses["duplicate"] >= 1
    assert statuses["quarantined"] >= 1


def test_a_wrong_source_says_what_was_found_and_expected(folder: Path, ingest: Callable[..., Any]) -> None:
    for seed in range(200, 204):
        _write(folder / "gliomma" / f"{seed}.png", _picture(seed))
    with pytest.raises(SourceLayoutError, match="did you mean glioma"):
        ingest(source=str(folder))
    assert ingest(source=str(folder), classes=["gliomma", "Glioma Tumor", {"none": ["no tumor"]}])[
        "metadata"
    ]["classes"]


def test_the_same_source_gives_the_same_manifest(folder: Path, ingest: Callable[..., Any]) -> None:
    first, second = ingest(source=str(folder)), ingest(source=str(folder))
    pd.testing.assert_frame_equal(first["manifest"], second["manifest"])
    assert first["metadata"] == second["metadata"]
    other = ingest(source=str(folder), seed=21)["manifest"]
    assert first["manifest"]["split"].tolist() != other["split"].tolist()


@pytest.mark.parametrize("kind", ["folder", "table", "phantom"])
def test_kept_originals_are_a_source_that_gives_the_same_manifest(
    kind: str, folder: Path, tmp_path: Path, ingest: Callable[..., Any], make_scans: Callable[..., Path]
) -> None:
    source, columns = folder, slice(None)
    if kind == "phantom":
        source = make_scans(images=60, seed=2)
    elif kind == "table":
        rows = [(f"Glioma_Tumor/scan {n}.png", "glioma", f"p{n // 2}", "train") for n in range(11)]
        rows += [(str(folder / "no tumor" / f"ä {n}.png"), "healthy", None, "test") for n in range(12)]
        source = folder / "table.csv"
        pd.DataFrame(rows, columns=["path", "label", "patient", "split"]).to_csv(source, index=False)
        columns = slice("scan_id", None)  # paths that led elsewhere are others now
    first = ingest(source=str(source), keep_original_files=True)
    assert first["originals"]["kept"]
    assert first["originals"]["files"] == len(first["manifest"]) + (kind != "folder")
    kept = tmp_path / "kept"
    (tmp_path / "original_files").rename(kept)
    again = ingest(source=str(kept / "scans.csv" if kind == "table" else kept))
    assert again["originals"] == {"kept": False, "files": 0, "bytes": 0}
    order = ["scan_id", "label"]
    pd.testing.assert_frame_equal(
        *(
            result["manifest"].sort_values(order, ignore_index=True).loc[:, columns]
            for result in (first, again)
        )
    )
    synthetic = [result["metadata"]["source"]["synthetic"] for result in (first, again)]
    assert synthetic == [kind == "phantom"] * 2


def test_counts_and_bytes_by_class_and_split_are_shown(
    folder: Path, ingest: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for number in range(12):
        path = folder / "no tumor" / f"ä {number}.png"
        path.write_bytes(path.read_bytes() + bytes(500_000))
    ingest(source=str(folder))
    table = next(record.getMessage() for record in caplog.records if "by class" in record.getMessage())
    cells = [line.split() for line in table.splitlines()[1:]]
    assert cells[0] == ["train", "validation", "test", "all"]
    assert cells[2] == ["notumor", "8", "4.0", "MB", "2", "1.0", "MB", "2", "1.0", "MB", "12", "6.0", "MB"]
    assert cells[3][-3:] == ["24", "6.1", "MB"]


def _sides(manifest: pd.DataFrame) -> dict[str, str]:
    """The split of every accepted scan."""
    accepted = manifest[manifest["status"] == "accepted"]
    return dict(zip(accepted["scan_id"], accepted["split"], strict=True))


def test_a_source_that_grew_is_added_and_no_earlier_scan_changes_sides(
    folder: Path, ingest: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = ingest(source=str(folder))
    for number in range(12, 36):
        _write(folder / "Glioma_Tumor" / f"scan {number}.png", _picture(number))
        _write(folder / "no tumor" / f"ä {number}.png", _picture(100 + number))
    _write(folder / "no tumor" / "copy.png", _picture(103))
    _write(folder / "no tumor" / "broken.png", b"no picture")
    after = ingest(source=str(folder), append=True)
    assert _sides(before["manifest"]).items() < _sides(after["manifest"]).items()
    assert "Of 74 files 24 were known; 48 scans joined the 24 earlier ones" in caplog.text
    assert after["manifest"]["split"].value_counts().to_dict() == {"train": 52, "validation": 10, "test": 10}
    assert after["quarantine"][["path", "reason", "content"]].to_numpy().tolist() == [
        ["no tumor/broken.png", "not_an_image", b"no picture"]
    ]
    again = ingest(source=str(folder), append=True)
    pd.testing.assert_frame_equal(again["manifest"], after["manifest"])
    pd.testing.assert_frame_equal(again["quarantine"], after["quarantine"])


def test_another_source_is_added_beside_paths_that_are_taken(
    folder: Path, tmp_path: Path, ingest: Callable[..., Any]
) -> None:
    before = ingest(source=str(folder), keep_original_files=True)
    other = tmp_path / "other"
    for number in range(12):
        _write(other / "Glioma_Tumor" / f"scan {number}.png", _picture(200 + number))
        _write(other / "pituitary" / f"{number}.png", _picture(300 + number))
    _write(other / "Glioma_Tumor" / "known.png", _picture(0))
    after = ingest(source=str(other), append=True, keep_original_files=True)
    manifest = after["manifest"]
    assert _sides(before["manifest"]).items() < _sides(manifest).items()
    assert manifest["path"].is_unique
    taken = manifest[manifest["path"].str.contains("@")]
    assert len(taken) == 12
    assert (
        taken["path"]
        == "Glioma_Tumor/scan "
        + taken["path"].str.extract(r"scan (\d+)")[0]
        + ".png@"
        + taken["scan_id"].str[:12]
    ).all()
    assert manifest.set_index("path").loc["Glioma_Tumor/known.png", "status"] == "duplicate"
    assert after["metadata"]["classes"] == ["glioma", "notumor", "pituitary"]
    source = after["metadata"]["source"]
    assert (source["url"], source["added_to"], source["files"]) == (str(other), [str(folder)], 49)
    kept = {
        str(path.relative_to(tmp_path / "original_files"))
        for path in (tmp_path / "original_files").rglob("*.png*")
    }
    assert kept == set(manifest["path"])


def test_a_scan_that_would_connect_two_sides_is_quarantined(
    folder: Path, tmp_path: Path, ingest: Callable[..., Any]
) -> None:
    rows = [(str(folder / f"Glioma_Tumor/scan {n}.png"), "glioma", f"p{n}") for n in range(12)]
    rows += [(str(folder / f"no tumor/ä {n}.png"), "notumor", f"q{n}") for n in range(12)]
    columns = ["path", "label", "patient"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "first.csv", index=False)
    before = ingest(source=str(tmp_path / "first.csv"))["manifest"]
    glioma = before[before["label"] == "glioma"]
    trained, tested = (glioma[glioma["split"] == split].iloc[0] for split in ("train", "test"))
    pixels = cv2.imread(tested["path"], cv2.IMREAD_GRAYSCALE)
    bridge, follower = tmp_path / "bridge.bmp", tmp_path / "follower.png"
    cv2.imwrite(str(bridge), pixels)  # the picture of the one side, of a patient of the other
    follower.write_bytes(_picture(500))
    new = [(str(bridge), "glioma", trained["patient"]), (str(follower), "glioma", trained["patient"])]
    pd.DataFrame(new, columns=columns).to_csv(tmp_path / "second.csv", index=False)
    after = ingest(source=str(tmp_path / "second.csv"), append=True, max_refused_share=0.9)
    assert _sides(before).items() < _sides(after["manifest"]).items()
    assert after["quarantine"][["path", "reason", "content"]].to_numpy().tolist() == [
        [str(bridge), "bridges_splits", bridge.read_bytes()]
    ]
    assert after["manifest"].set_index("path").loc[str(follower), "split"] == "train"
    assert after["metadata"]["source"]["changes"]["quarantined"] == {"bridges_splits": 1}


def test_another_source_starts_afresh_and_says_so(
    folder: Path, tmp_path: Path, ingest: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ingest(source=str(folder))
    ingest(source=str(folder))
    assert "afresh" not in caplog.text
    other = tmp_path / "other"
    for number in range(12):
        _write(other / "glioma" / f"{number}.png", _picture(200 + number))
        _write(other / "notumor" / f"{number}.png", _picture(300 + number))
    manifest = ingest(source=str(other))["manifest"]
    assert f"Starting afresh: the scans here came from {folder}" in caplog.text
    assert len(manifest) == 24


def test_afresh_is_said_too_where_the_source_was_one_of_several(
    folder: Path, tmp_path: Path, ingest: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ingest(source=str(folder))
    for number in range(12):
        _write(tmp_path / "other" / "glioma" / f"{number}.png", _picture(200 + number))
        _write(tmp_path / "other" / "notumor" / f"{number}.png", _picture(300 + number))
    ingest(source=str(tmp_path / "other"), append=True)
    assert "Starting afresh" not in caplog.text
    ingest(source=str(tmp_path / "other"))
    assert f"Starting afresh: the scans here came from {folder} and {tmp_path / 'other'}" in caplog.text


@pytest.mark.parametrize(
    "classes", [["glioma", "pituitary"], ["notumor", "glioma"], ["pituitary", "meningioma"]]
)
def test_nothing_is_added_under_other_classes(
    folder: Path, ingest: Callable[..., Any], classes: list[str]
) -> None:
    ingest(source=str(folder))
    with pytest.raises(nodes.MixedSourcesError, match="have the classes glioma, notumor"):
        ingest(source=str(folder), append=True, classes=classes)


@pytest.mark.parametrize("lost", ["mark", "blocks", "everything"])
def test_nothing_is_added_to_scans_that_are_gone(
    folder: Path, tmp_path: Path, ingest: Callable[..., Any], lost: str
) -> None:
    ingest(source=str(folder))
    stored = tmp_path / "scans.parquet"
    if lost == "everything":
        shutil.rmtree(stored)
    elif lost == "mark":
        (stored / "_SUCCESS").unlink()
    else:  # as a run on another source leaves it that is broken off before it saves its manifest
        for number in range(12):
            _write(tmp_path / "other" / "glioma" / f"{number}.png", _picture(200 + number))
            _write(tmp_path / "other" / "notumor" / f"{number}.png", _picture(300 + number))
        parameters = _parameters(source=str(tmp_path / "other"))
        files, description = nodes.list_scans(RawFolder(str(tmp_path / "01_raw")), {}, parameters)
        PackedScansDataset(filepath=str(stored)).save(
            nodes.pack_scans(files, description, pd.DataFrame(), parameters)
        )
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet") if path.is_file()}
    _write(folder / "Glioma_Tumor" / "new.png", _picture(999))
    with pytest.raises(DatasetError, match=r"lacks 24 of the 24 files .* without ingestion\.append"):
        ingest(source=str(folder), append=True)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.parquet") if path.is_file()}


def test_nothing_to_add_to_makes_a_first_set(
    folder: Path, ingest: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert len(ingest(source=str(folder), append=True)["manifest"]) == 24
    assert "no earlier scans to add to" in caplog.text


def test_drawn_scans_are_never_added_to_a_users(
    folder: Path, ingest: Callable[..., Any], make_scans: Callable[..., Path]
) -> None:
    ingest(source=str(folder))
    with pytest.raises(nodes.MixedSourcesError, match="drawn scans never mix with others"):
        ingest(source=str(make_scans(60)), append=True)


def test_nothing_is_added_to_an_official_test_half(
    folder: Path, tmp_path: Path, ingest: Callable[..., Any]
) -> None:
    for number in range(12):
        part = "Testing" if number < 3 else "Training"
        _write(tmp_path / "official" / part / "glioma" / f"{number}.png", _picture(number))
        _write(tmp_path / "official" / part / "notumor" / f"{number}.png", _picture(100 + number))
    ingest(source=str(tmp_path / "official"), test_split="official")
    with pytest.raises(nodes.MixedSourcesError, match="official test half"):
        ingest(source=str(folder), append=True)


def test_the_stored_manifest_has_a_thumbnail_of_every_scan(
    folder: Path, tmp_path: Path, ingest: Callable[..., Any]
) -> None:
    _write(folder / "no tumor" / "broken.png", b"no picture")
    ingest(source=str(folder))
    stored = pd.read_parquet(tmp_path / "manifest.parquet")
    assert set(COLUMNS) == set(stored.columns)
    content = (folder / "no tumor" / "ä 3.png").read_bytes()
    row = stored.set_index("path").loc["no tumor/ä 3.png"]
    assert row["thumbnail"] == inspect_scan(content).thumbnail
    assert stored.loc[stored["status"] == "quarantined", "thumbnail"].isna().all()
