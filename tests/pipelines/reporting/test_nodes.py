from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from brain_mri.datasets.versions import FolderVersion, VersionedFolderDataset
from brain_mri.evaluation.calibration import apply_temperature
from brain_mri.inference.classifier import Answers, Calibration
from brain_mri.inference.novelty import make_reference
from brain_mri.models.recipe import make_recipe
from brain_mri.models.shards import ArrayShards
from brain_mri.pipelines.reporting import nodes
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from brain_mri.pipelines.reporting.predicting import (
    OtherClassesError,
    OtherScansError,
    SeenScansError,
    predict_test,
    refuse_other_version,
    tabulate_answers,
)
from brain_mri.report.speed import NOT_MEASURED
from tests.linear_graphs import linear_graph

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
CALIBRATION = Calibration(temperature=2.0, abstention_threshold=0.6, out_of_distribution_threshold=0.3)
STATS = {"images_per_second": 1640.5}
PARAMETERS = ReportingParameters(batch_size=4, bootstrap_replicates=100)
SPLIT = {"source": {"synthetic": True}}
VERSION = FolderVersion("/nowhere", "2026-11-28", {})


@pytest.fixture
def calibration_only(tmp_path: Path) -> FolderVersion:
    """A version of which only the calibration is there: all that evaluation reads of it."""
    dataset = VersionedFolderDataset(filepath=str(tmp_path / "classifier"))
    dataset.save({"calibration.json": CALIBRATION.model_dump_json().encode()})
    return dataset.load()


def answers_of(probabilities: NDArray[np.float64]) -> Answers:
    """What the engine makes of a network's probabilities; nothing is strange to it."""
    calibrated = apply_temperature(probabilities, CALIBRATION.temperature)
    near = np.zeros(len(probabilities))
    abstained = calibrated.max(axis=1) < CALIBRATION.abstention_threshold
    return Answers(probabilities.astype(np.float32), calibrated, near, abstained, near > 0)


def predict(rows: int, wrong: int, confidence: float = 0.97) -> pd.DataFrame:
    """A table of predictions of which the first `wrong` scan ids are wrong."""
    labels = np.arange(rows) % 4
    answers = np.where(np.arange(rows) < wrong, (labels + 1) % 4, labels)
    probabilities = np.full((rows, 4), (1 - confidence) / 3)
    probabilities[np.arange(rows), answers] = confidence
    scan_ids = np.array([f"{number:064x}" for number in range(rows)])
    table = tabulate_answers(scan_ids, labels, answers_of(probabilities), CLASSES)
    return table.assign(duplicate_group=np.arange(rows) // 2)


def make_shards(rows: int) -> ArrayShards:
    pixels = np.random.default_rng(1).integers(0, 255, (rows, 32, 32)).astype(np.uint8)
    return ArrayShards(pixels, np.arange(rows, dtype=np.int64) % 4, CLASSES)


def test_answers_become_a_table() -> None:
    answers = answers_of(np.array([[0.9, 0.1, 0, 0], [0.4, 0.3, 0.2, 0.1]]))
    table = tabulate_answers(np.array(["b", "a"]), np.array([0, 3]), answers, CLASSES)
    assert table["scan_id"].tolist() == ["b", "a"]
    assert table["label_name"].tolist() == ["glioma", "pituitary"]
    assert table["predicted_name"].tolist() == ["glioma", "glioma"]
    roots = np.sqrt([0.9, 0.1])  # temperature 2 takes the square root of every probability
    assert table["confidence"][0] == pytest.approx(roots[0] / roots.sum(), rel=1e-5)
    assert table["confidence"][0] == table["calibrated_glioma"][0]
    assert table["probability_glioma"][0] == pytest.approx(0.9)
    assert table["abstained"].tolist() == [False, True]


def test_evaluation_counts_every_scan_and_says_what_abstaining_gives(calibration_only: FolderVersion) -> None:
    predictions = predict(rows=40, wrong=4)
    predictions["abstained"] = np.arange(40) < 2
    metrics, report = nodes.evaluate(predictions, calibration_only, STATS, PARAMETERS)
    assert metrics["accuracy"] == pytest.approx(0.9)
    assert metrics["coverage"] == pytest.approx(0.95)
    assert metrics["accuracy_answered"] == pytest.approx(36 / 38)
    assert metrics["recall_glioma"] == pytest.approx(0.9)
    assert metrics["preprocessing_images_per_second"] == 1640.5
    # 0.97 is meant, 0.9 is true; temperature 2 makes the confidence sqrt(0.97) / (sqrt(0.97) + 3 sqrt(0.01)).
    softened = np.sqrt(0.97) / (np.sqrt(0.97) + 3 * np.sqrt(0.01))
    assert metrics["ece_uncalibrated"] == pytest.approx(0.07)
    assert metrics["ece"] == pytest.approx(0.9 - softened)
    assert (report["scans"], report["right"], report["abstained"]) == (40, 36, 2)
    assert report["confusion_matrix"][0] == [9, 1, 0, 0]
    assert report["sentences"]["glioma"].startswith(
        "Of 10 gliomas 9 were recognised; 1 was taken for meningioma."
    )
    assert report["names"]["notumor"] == "No tumour"
    low, high = report["intervals"]["accuracy"]
    assert 0.75 < low < 0.9 < high <= 1
    assert report["groups"] == 20
    assert report["sure"]["scans"] == 0  # softened, nothing is that sure
    assert report["coverage_curve"]["coverage"][-1] == 1


def test_evaluation_survives_abstaining_everywhere(calibration_only: FolderVersion) -> None:
    predictions = predict(rows=8, wrong=0)
    predictions["abstained"] = True
    metrics, _ = nodes.evaluate(predictions, calibration_only, STATS, PARAMETERS)
    assert metrics["coverage"] == 0.0
    assert metrics["accuracy_answered"] is None


@pytest.mark.parametrize(
    ("rows", "wrong", "shown"), [(100, 30, 4), (100, 2, 2), (100, 0, 0), (14, 9, 7), (6, 3, 3)]
)
def test_examples_show_mistakes_and_follow_the_seed(rows: int, wrong: int, shown: int) -> None:
    predictions = predict(rows, wrong)
    chosen = nodes.choose_examples(predictions, seed=1)
    assert len(chosen) == min(rows, 12)
    assert (chosen["label"] != chosen["predicted"]).sum() == shown
    pd.testing.assert_frame_equal(chosen, nodes.choose_examples(predictions, seed=1))
    if rows == 100:
        assert chosen["scan_id"].tolist() != nodes.choose_examples(predictions, seed=2)["scan_id"].tolist()


def test_sample_predictions_draw_the_scan_that_they_name() -> None:
    shards = make_shards(16)
    predictions = predict(16, wrong=1)
    scan_ids = np.concatenate([ids for ids, _, _ in shards.batches(16)])
    predictions["scan_id"] = scan_ids
    figure = nodes.draw_sample_predictions(predictions, shards, SPLIT, PARAMETERS)
    known = dict(zip(scan_ids, shards.pixels, strict=True))
    chosen = nodes.choose_examples(predictions, PARAMETERS.seed)
    assert len(figure.axes) == 12
    for panel, scan_id in zip(figure.axes, chosen["scan_id"], strict=True):
        assert (panel.images[0].get_array() == known[scan_id]).all()


def test_figures_and_report_are_made_from_what_evaluation_returns(calibration_only: FolderVersion) -> None:
    metrics, report = nodes.evaluate(predict(rows=40, wrong=4), calibration_only, STATS, PARAMETERS)
    for draw in (
        nodes.draw_confusion_matrix,
        nodes.draw_per_class_metrics,
        nodes.draw_roc_curves,
        nodes.draw_calibration,
        nodes.draw_coverage,
    ):
        figure = draw(report, SPLIT)
        assert any("Synthetic data" in text.get_text() for text in figure.texts), draw.__name__
    assert metrics["accuracy"] == 0.9


def test_every_stage_that_records_its_seconds_has_a_rate() -> None:
    stats = {"images": 600, "images_per_second": 900.0, "prepare_seconds": 0.5, "write_seconds": 0.0}
    epochs = [{"images_per_second": 100.0}, {"images_per_second": 140.0}]
    assert nodes.stage_rates(stats, [{"name": "from scratch", "epochs": epochs}]) == {
        "decode, grey, resize (a core)": 1200.0,
        "preprocessing (all cores)": 900.0,
        "training: from scratch": 120.0,
    }


def test_runtime_is_drawn_where_the_benchmark_was_run_and_said_to_be_missing_elsewhere() -> None:
    run = {"place": "local", "workers": 1, "images": 600, "cold_seconds": 9.0, "warm_seconds": 1.5}
    section = {"title": "Speed", "synthetic": True, "runtime_vs_workers": [run, {**run, "workers": 2}]}
    (panel,) = nodes.draw_runtime_vs_workers(section).axes
    assert [line.get_xdata().tolist() for line in panel.lines] == [[1, 2], [1, 2]]
    (panel,) = nodes.draw_runtime_vs_workers({}).axes
    assert [text.get_text() for text in panel.texts] == [NOT_MEASURED]


@pytest.mark.parametrize(("measured", "backbone"), [(True, "resnet50"), (True, "compact"), (False, "")])
def test_the_report_shows_benchmarks_only_where_they_were_run(
    monkeypatch: pytest.MonkeyPatch, measured: bool, backbone: str
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(nodes, "build_page", lambda **values: given.update(values) or "page")
    metadata = {"data": {"preparation": "these"}, "tuning": {"study": "one"}, "backbone": "compact"}
    monkeypatch.setattr(nodes, "read_document", lambda classifier, name: metadata)
    section = {"title": "Speed", "figures": [{"caption": "Ways", "png": "d2F5cw=="}]} if measured else {}
    of_network = section | {"backbone": backbone} if measured else {}
    nodes.build_report(
        metrics={},
        classification_report={},
        split_metadata=SPLIT,
        preprocessing_stats={},
        exploration={},
        classifier=VERSION,
        explanations={},
        repetitions={},
        section_comparison={},
        section_benchmarks=section,
        section_training=of_network,
        section_tuning={},
        section_audit={},
        runtime_vs_workers_png=b"workers",
        calibration_png=b"bins",
    )
    assert given["pictures"] == {"calibration": b"bins"}
    pictures = [[figure["png"] for figure in section["figures"]] for section in given["sections"]]
    speed, training = ["d2F5cw==", base64.b64encode(b"workers").decode()], ["d2F5cw=="]
    of_this_network = [training] if backbone == "compact" else []
    assert pictures == ([speed, *of_this_network] if measured else [])


HINT = "training.config=tuned trains with it."


@pytest.mark.parametrize(
    ("study", "preparation", "expected"),
    [
        ("one", "these", ["Found.", "The classifier of this report was trained with it."]),
        (
            "other",
            "these",
            ["Found.", f"The classifier of this report was trained without it; {HINT}"],
        ),
        ("one", "others", None),
    ],
)
def test_a_search_is_shown_with_the_scans_that_it_was_done_on(
    monkeypatch: pytest.MonkeyPatch, study: str, preparation: str, expected: list[str] | None
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(nodes, "build_page", lambda **values: given.update(values) or "page")
    metadata = {"data": {"preparation": "these"}, "tuning": {"study": "one", "trial": 7}}
    monkeypatch.setattr(nodes, "read_document", lambda classifier, name: metadata)
    section = {
        "study": study, "trial": 7, "preparation": preparation, "title": "Search",
        "paragraphs": ["Found."], "tables": [],
        "figures": [],
    }  # fmt: skip
    nodes.build_report(
        metrics={}, classification_report={}, split_metadata=SPLIT, preprocessing_stats={}, exploration={},
        classifier=VERSION, explanations={}, repetitions={}, section_comparison={},
        section_benchmarks={}, section_training={},
        section_tuning=section, section_audit={}, runtime_vs_workers_png=b"workers",
    )  # fmt: skip
    shown = [page["paragraphs"] for page in given["sections"]]
    assert shown == ([expected] if expected else [])


@pytest.fixture
def version(tmp_path: Path) -> FolderVersion:
    """A saved classifier whose answer is the quadrant that is brightest."""
    weights = np.zeros((2, 16, 2, 16, 4))
    for label in range(4):
        weights[label // 2, :, label % 2, :, label] = 1 / 256 / 50
    recipe = make_recipe("baseline", backbone="compact", weights=None, image_size=32, classes=CLASSES, seed=1)
    dataset = VersionedFolderDataset(filepath=str(tmp_path / "classifier"))
    dataset.save(
        {
            "graph.onnx": linear_graph(weights.reshape(-1, 4), 32),
            "preparation.json": json.dumps({"image_size": 32}).encode(),
            "calibration.json": CALIBRATION.model_dump_json().encode(),
            "reference_features.npy": make_reference(np.eye(4)[[0, 1, 2] * 5], 1).to_bytes(),
            "recipe.json": recipe.model_dump_json().encode(),
            "model_metadata.json": b"{}",
            "seen_scans.npy": array_bytes(np.array([20, 21])),
        }
    )
    return dataset.load()


def array_bytes(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_the_test_split_is_predicted_by_the_saved_version(version: FolderVersion) -> None:
    pixels = np.zeros((10, 32, 32), np.uint8)
    labels = np.arange(10, dtype=np.int64) % 4
    for image, label in zip(pixels, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 200
    shards = ArrayShards(pixels, labels, CLASSES)
    manifest = pd.DataFrame(
        {
            "scan_id": [str(number) for number in range(10)],
            "status": "accepted",
            "duplicate_group": np.arange(10) // 2,
        }
    )
    table = predict_test(version, shards, manifest, PARAMETERS)
    assert (table["label"] == table["predicted"]).all()
    assert len(table) == 10
    assert table["scan_id"].is_monotonic_increasing
    assert table["probability_glioma"][table["label"] == 0].to_numpy() == pytest.approx(
        np.exp(4) / (np.exp(4) + 3), rel=1e-4
    )
    assert (table["duplicate_group"] == table["scan_id"].astype(int) // 2).all()
    assert table["out_of_distribution"].tolist() == (table["label"] == 3).tolist()  # it was trained on others
    refuse_other_version(version, table)
    with pytest.raises(OtherScansError, match="1 of 10 test scans"):
        predict_test(version, shards, manifest[1:], PARAMETERS)
    ids = np.array([f"{number:x}" for number in range(12, 22)])
    with pytest.raises(SeenScansError, match="on 2 of the 10 scans of this test split"):
        predict_test(version, ArrayShards(pixels, labels, CLASSES, "", ids), manifest, PARAMETERS)
    larger = ArrayShards(pixels.repeat(2, axis=1).repeat(2, axis=2), labels, CLASSES)
    with pytest.raises(OtherScansError, match="prepared otherwise"):
        predict_test(version, larger, manifest, PARAMETERS)
    other = ArrayShards(pixels, labels, CLASSES[::-1])
    with pytest.raises(OtherClassesError, match="kedro run --pipelines=training,reporting"):
        predict_test(version, other, manifest, PARAMETERS)
