from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray

from brain_mri.cohort.manifest import SHARED_WITH_TEST
from brain_mri.datasets.shards import scan_numbers
from brain_mri.datasets.versions import FolderVersion, VersionedFolderDataset
from brain_mri.imaging.corruptions import CORRUPTIONS
from brain_mri.imaging.inspect import difference_hash
from brain_mri.inference.classifier import Calibration
from brain_mri.inference.novelty import make_reference
from brain_mri.models.recipe import make_recipe
from brain_mri.models.shards import ArrayShards
from brain_mri.pipelines.audit import mirrors, nodes, protocols, robustness, shortcuts
from brain_mri.pipelines.audit.parameters import AuditParameters
from brain_mri.pipelines.reporting.predicting import OtherScansError, OtherVersionError, fingerprint_of
from tests.cohort.looks import Looks, faces
from tests.linear_graphs import linear_graph

CLASSES = ("left", "right")
SIZE = 32
PARAMETERS = AuditParameters(robustness_scans=40, epochs=3)
CONF = Path(__file__).resolve().parents[3] / "conf" / "base"


def halves(rows: int, seed: int) -> ArrayShards:
    """Noisy pictures of which one half is brighter."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, rows)
    pixels = generator.integers(20, 60, (rows, SIZE, SIZE))
    for image, label in zip(pixels, labels, strict=True):
        image[:, SIZE // 2 * label : SIZE // 2 * (label + 1)] += 120
    ids = np.array([f"{seed}{number:04d}" for number in range(rows)])
    return ArrayShards(pixels.astype(np.uint8), labels, CLASSES, "", ids)


@pytest.fixture
def version(tmp_path: Path) -> FolderVersion:
    """A classifier that names the brighter half."""
    return published(tmp_path)


def published(folder: Path, seen: Sequence[str] = ()) -> FolderVersion:
    """That classifier, as if it had seen some scans."""
    weights = np.zeros((SIZE, SIZE, 2), np.float32)
    weights[:, : SIZE // 2, 0] = weights[:, SIZE // 2 :, 1] = 8 / (SIZE * SIZE * 255)
    calibration = Calibration(temperature=1.0, abstention_threshold=0.7, out_of_distribution_threshold=0.2)
    recipe = make_recipe(
        "baseline", backbone="compact", weights=None, image_size=SIZE, classes=CLASSES, seed=1
    )
    numbers = io.BytesIO()
    np.save(numbers, scan_numbers(np.array(seen, str)))
    dataset = VersionedFolderDataset(filepath=str(folder / "classifier"))
    dataset.save(
        {
            "graph.onnx": linear_graph(weights.reshape(-1, 2), SIZE),
            "preparation.json": json.dumps({"image_size": SIZE}).encode(),
            "calibration.json": calibration.model_dump_json().encode(),
            "reference_features.npy": make_reference([[4, 1], [1, 4]] * 5, 1).to_bytes(),
            "recipe.json": recipe.model_dump_json().encode(),
            "seen_scans.npy": numbers.getvalue(),
        }
    )
    return dataset.load()


def test_robustness_falls_where_the_answer_is_spoilt_and_nowhere_else(version: FolderVersion) -> None:
    test = halves(60, seed=1)
    test = ArrayShards(np.maximum(test.pixels, 1), test.labels, CLASSES)
    rows = robustness.measure_robustness(version, test, PARAMETERS)
    assert {row["scans"] for row in rows} == {40}
    assert [row["kind"] for row in rows] == [kind for kind in CORRUPTIONS for _ in range(5)]
    assert all(row["accuracy"] == 1 for row in rows if row["kind"] in {"noise", "blur", "jpeg", "brightness"})
    turned = {row["level"]: row for row in rows if row["kind"] == "rotation"}
    assert turned[45]["out_of_distribution"] >= turned[0]["out_of_distribution"]


def predictions_of(version: FolderVersion | None, distances: NDArray[np.float64]) -> pd.DataFrame:
    rows = len(distances)
    label = np.arange(rows) % 2
    return pd.DataFrame(
        {
            "scan_id": [str(number) for number in range(rows)],
            "label": label,
            "predicted": np.where(np.arange(rows) < rows // 4, 1 - label, label),
            "distance": distances,
            "model_fingerprint": fingerprint_of(version) if version else "any",
            "duplicate_group": np.arange(rows),
            **{
                f"calibrated_{name}": np.where(label == index, 0.9, 0.1) for index, name in enumerate(CLASSES)
            },
        }
    )


def test_strangers_are_refused_by_their_distance(version: FolderVersion, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    for number in range(3):  # both halves alike, unlike any training scan
        grey = np.full((SIZE, SIZE), 200, np.uint8)
        grey[::4] = 90
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    (folder / "note.txt").write_text("no picture")
    parameters = PARAMETERS.model_copy(update={"foreign": str(folder)})
    predictions = predictions_of(version, np.full(20, 0.01))
    found = robustness.measure_strangers(version, predictions, parameters)
    assert found["strangers"]["foreign"]["pictures"] == 3
    assert found["strangers"]["foreign"]["refused"] == 1
    assert found["strangers"]["foreign"]["auroc"] == 1
    assert list(found["strangers"]) == ["noise", "drawn", "foreign"]
    assert found["strangers"]["noise"]["pictures"] == robustness.MADE_PICTURES
    with pytest.raises(OtherVersionError, match=f"not those of version {version.version}"):
        robustness.measure_strangers(
            version, predictions.assign(model_fingerprint="of yesterday"), parameters
        )
    (folder / "note.txt").rename(tmp_path / "note.txt")
    with pytest.raises(ValueError, match="no picture in it that can be read"):
        for path in folder.glob("*.png"):
            path.unlink()
        (folder / "note.txt").write_text("no picture")
        robustness.measure_strangers(version, predictions, parameters)


def facts(ids: NDArray[np.str_], labels: NDArray[np.int64], told: bool) -> pd.DataFrame:
    """A manifest; where `told`, the files of a class have a size of their own."""
    rows = len(ids)
    width = np.where(labels == 1, 512, 300) if told else np.full(rows, 400)
    return pd.DataFrame(
        {
            "scan_id": ids, "status": "accepted", "width": width, "height": 400, "bytes": 20_000,
            "bit_depth": 8, "mode": "L", "format": "JPEG",
        }
    )  # fmt: skip


@pytest.mark.parametrize("told", [True, False])
def test_the_probe_finds_what_files_tell(told: bool) -> None:
    generator = np.random.default_rng(2)
    sets = []
    for seed, rows in ((1, 300), (2, 200)):
        labels = generator.integers(0, 2, rows)
        pixels = generator.integers(0, 256, (rows, SIZE, SIZE)).astype(np.uint8)  # they tell nothing
        sets.append(ArrayShards(pixels, labels, CLASSES, "", np.array([f"{seed}-{n}" for n in range(rows)])))
    manifest = pd.concat([facts(each.scan_ids, each.labels, told) for each in sets])
    probes = {row["probe"]: row for row in shortcuts.probe_shortcuts(manifest, *sets, PARAMETERS)}
    if told:
        assert probes["file and size"]["accuracy"] == 1
    else:
        assert probes["file and size"]["balanced_accuracy"] == 0.5
    assert 0.35 < probes["border"]["balanced_accuracy"] < 0.65


def test_the_border_is_read_and_the_middle_is_not() -> None:
    pixels = np.zeros((2, 56, 56), np.uint8)
    pixels[1, 8:-8, 8:-8] = 255
    features = shortcuts.border_features(pixels)
    np.testing.assert_array_equal(features[0], features[1])
    pixels[1, :2] = 100
    assert (shortcuts.border_features(pixels)[1] != features[0]).any()


def test_accuracy_is_told_by_kinds_of_files_with_enough_scans() -> None:
    predictions = predictions_of(None, np.zeros(40))
    manifest = facts(predictions["scan_id"].to_numpy(str), np.arange(40) // 20, told=True)
    manifest.loc[:4, "mode"] = "RGB"
    rows = {(row["by"], row["kind"]): row for row in robustness.measure_kinds(predictions, manifest)}
    assert rows["shape", "upright"] == {"by": "shape", "kind": "upright", "scans": 20, "accuracy": 0.5}
    assert rows["shape", "lying"]["accuracy"] == 1
    assert ("mode", "RGB") not in rows  # five scans say nothing
    assert rows["mode", "L"]["scans"] == 35


class Packed:
    """Packed scans of which the thumbnails are at hand."""

    def __init__(self, looks: dict[str, NDArray[np.uint8]]) -> None:
        self.looks = looks

    def thumbnail_store(self) -> Looks:
        return Looks({scan_id: look.tobytes() for scan_id, look in self.looks.items()})


def test_test_scans_of_which_a_mirror_image_was_learned_are_measured_apart(tmp_path: Path) -> None:
    """Of 20 test scans the first five are answered wrongly; 4 to 8 have mirror images that were learned.

    9 mirrors a scan that nobody looked at, 10 and 11 each other.
    """
    looks = faces(41, seed=1, side=64)
    ways = [np.fliplr, np.flipud, lambda look: np.rot90(look, 2)]
    for number in range(4, 9):
        looks[20 + number] = np.ascontiguousarray(ways[number % 3](looks[number]))
    looks[40], looks[11] = np.fliplr(looks[9]).copy(), np.fliplr(looks[10]).copy()
    ids = [f"{number:064x}"[::-1] for number in range(41)]
    manifest = pd.DataFrame(
        {
            "scan_id": ids, "pixel_hash": ids, "status": "accepted", "patient": None, "study": None,
            "dhash": [difference_hash(look) for look in looks],
        }
    )  # fmt: skip
    version = published(tmp_path, seen=ids[20:40])
    predictions = predictions_of(version, np.zeros(20)).assign(scan_id=ids[:20])
    calibrated = [f"calibrated_{name}" for name in CLASSES]
    predictions.loc[:4, calibrated] = predictions.loc[:4, calibrated[::-1]].to_numpy()
    scans = Packed(dict(zip(ids, looks, strict=True)))
    seen, unseen = mirrors.measure_mirrors(version, manifest, scans, predictions, PARAMETERS)
    assert (seen["mirror_image"], seen["tested"], seen["accuracy"]) == ("with", 5, 0.8)
    assert (unseen["mirror_image"], unseen["tested"], unseen["accuracy"]) == ("without", 15, 11 / 15)
    assert unseen["interval"][0] < 11 / 15 < unseen["interval"][1]
    (alone,) = mirrors.measure_mirrors(
        published(tmp_path, seen=ids[30:40]), manifest, scans, predictions, PARAMETERS
    )
    assert (alone["mirror_image"], alone["tested"]) == ("without", 20)
    with pytest.raises(OtherVersionError):
        other = predictions.assign(model_fingerprint="of yesterday")
        mirrors.measure_mirrors(version, manifest, scans, other, PARAMETERS)
    with pytest.raises(OtherScansError, match=r"3 scans that version .* are not in the manifest"):
        mirrors.measure_mirrors(version, manifest[3:], scans, predictions, PARAMETERS)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([("without", 60, 0.9)], "No test scan is tied"),
        ([("with", 40, 0.975)], "Of 40 test scans 40 (100.0%) would share"),
        (
            [("with", 40, 0.975), ("without", 60, 0.9)],
            "(0.800 to 1.000; macro F1 0.700), and 0.900",
        ),
    ],
)
def test_what_mirror_images_are_worth_is_said(found: list[tuple[str, int, float]], expected: str) -> None:
    rows = {
        kind: {
            "mirror_image": kind,
            "tested": tested,
            "accuracy": accuracy,
            "interval": [0.8, 1.0],
            "macro_f1": 0.7,
        }
        for kind, tested, accuracy in found
    }
    assert expected in nodes._say_mirrors(rows)


@pytest.mark.tensorflow
def test_shuffled_labels_fall_to_chance_and_a_leak_does_not(
    version: FolderVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = halves(120, seed=1), halves(40, seed=2), halves(80, seed=3)
    manifest = pd.DataFrame(
        {"scan_id": sets[2].scan_ids, "status": "accepted", "duplicate_group": np.arange(80) // 2}
    )
    found = protocols.train_on_shuffled_labels(version, manifest, *sets, PARAMETERS)
    assert found["fell_to_chance"]
    assert found["interval"][0] <= found["chance"] == 0.5
    monkeypatch.setattr(protocols, "_shuffled", lambda shards, generator: shards)
    found = protocols.train_on_shuffled_labels(version, manifest, *sets, AuditParameters())
    assert not found["fell_to_chance"]
    assert found["balanced_accuracy"] > 0.9


@pytest.mark.tensorflow
def test_the_official_protocol_is_measured_with_and_without_its_leaks(version: FolderVersion) -> None:
    train, validation, test = halves(100, seed=1), halves(30, seed=2), halves(60, seed=3)
    ids = np.concatenate([each.scan_ids for each in (train, validation, test)])
    labels = np.concatenate([each.labels for each in (train, validation, test)])
    group = np.arange(190)
    group[:20] = group[-20:]  # twenty scans of the official test half have a twin in the other half
    paths = [f"{number}.png" for number in range(190)]
    source = pd.DataFrame({"path": paths, "official_split": ["train"] * 130 + ["test"] * 60})
    manifest = pd.DataFrame(
        {
            "path": paths, "scan_id": ids, "label": labels, "duplicate_group": group, "status": "accepted",
            "reason": "",
        }
    )  # fmt: skip
    predictions = predictions_of(version, np.zeros(60))
    arguments = (version, source, manifest, predictions, train, validation, test, PARAMETERS)
    naive, clean, own = protocols.compare_protocols(*arguments)
    assert (naive["tested"], clean["tested"], own["tested"]) == (60, 40, 60)
    assert naive["leaked"] == pytest.approx(1 / 3)
    assert clean["leaked"] == 0
    assert naive["trained"] == clean["trained"] < 130
    assert own["accuracy"] == 1  # by the calibrated probabilities above
    assert naive["interval"][0] <= naive["accuracy"] <= naive["interval"][1]
    assert naive["epochs"] == clean["epochs"] == [3]
    assert own["epochs"][0] > 3
    manifest.loc[0, "reason"] = SHARED_WITH_TEST
    assert protocols.compare_protocols(*arguments) == [], "the leak was taken out before"
    manifest["reason"], source["official_split"] = "", None
    assert protocols.compare_protocols(*arguments) == []


def test_the_section_says_what_was_found(version: FolderVersion) -> None:
    rows = [
        {"kind": "noise", "unit": "grey levels", "level": level, "accuracy": 0.9, "abstained": 0.1}
        for level in (0, 10)
    ]
    made = {"pictures": 300, "refused": 0.97, "auroc": 0.991, "confident": 0.4, "distances": [0.5, 0.6]}
    strangers = {"threshold": 0.3, "test": [0.1, 0.2], "strangers": {"made": made}}
    protocol = {"trained": 100, "tested": 60, "interval": [0.9, 1.0], "macro_f1": 0.95, "epochs": [5]}
    figures = nodes.draw_audit(rows, strangers, {"source": {"synthetic": True}})
    assert all(any("Synthetic" in text.get_text() for text in figure.texts) for figure in figures)
    section = nodes.describe_audit(
        version, rows, strangers,
        [{"by": "shape", "kind": "square", "scans": 1200, "accuracy": 0.9}],
        [{"probe": "border", "features": 36, "accuracy": 0.51, "balanced_accuracy": 0.49, "chance": 0.3}],
        {"balanced_accuracy": 0.26, "interval": [0.21, 0.3], "chance": 0.25, "fell_to_chance": True},
        [
            protocol | {"protocol": "official", "accuracy": 0.99, "leaked": 0.3},
            protocol | {"protocol": "official, leaks removed", "accuracy": 0.97, "leaked": 0.0},
            protocol | {"protocol": "groups: this version", "accuracy": 0.975, "leaked": 0.0, "epochs": [14]},
        ],
        [{"mirror_image": "without", "tested": 60, "accuracy": 0.975, "interval": [0.9, 1.0]}],
        b"curves", b"distances",
    )  # fmt: skip
    said = " ".join(section["paragraphs"])
    assert "it fell to chance, as it must: balanced accuracy 0.260 (0.210 to 0.300)" in said
    assert "reach 0.510 from border" in said
    assert "97.0% are refused" in said
    assert "at least 90% sure of 40.0%" in said
    assert section["tables"][0]["caption"].endswith("but with fewer epochs by the official one")
    assert "2.00 points were owed to the leak" in said
    assert "No test scan is tied to scans of training" in said
    assert section["version"] == version.version
    assert [table["caption"][:10] for table in section["tables"]] == [
        "What leaks",
        "What can b",
        "Accuracy b",
    ]


def test_parameters_in_the_file_are_the_defaults() -> None:
    given = yaml.safe_load((CONF / "parameters_audit.yml").read_text())["audit"]
    assert AuditParameters(**given) == AuditParameters()
