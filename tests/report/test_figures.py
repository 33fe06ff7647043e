from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from brain_mri.report import figures
from brain_mri.report import results as drawn_results
from brain_mri.report.style import CLASS_COLOURS, RIGHT, SYNTHETIC, WRONG, class_colours


def draw(figure: Figure) -> np.ndarray:
    """The figure's pixels, uint8 (height, width, 3)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return np.asarray(Image.open(buffer).convert("RGB"))


def share_of(pixels: np.ndarray, colour: str) -> float:
    """Share of the pixels that have a colour."""
    wanted = np.round(255 * np.array(to_rgb(colour)))
    return float((np.abs(pixels - wanted).max(axis=2) <= 3).mean())


def texts(figure: Figure) -> str:
    """Everything that is written on a figure."""
    found = [text.get_text() for text in figure.texts]
    for panel in figure.axes:
        labels = [*panel.get_xticklabels(), *panel.get_yticklabels()]
        titles = [panel.get_title(loc) for loc in ("left", "center")]
        found += [text.get_text() for text in (*panel.texts, *labels)] + titles
    return "\n".join(found)


def gradient() -> np.ndarray:
    return np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))


def test_class_distribution_says_every_count(names: dict[str, str]) -> None:
    counts = {"train": dict.fromkeys(names, 1234), "test": dict.fromkeys(names, 56)}
    figure = figures.class_distribution(counts, names)
    said = texts(figure)
    assert said.count("1,234 train") == said.count("56 test") == 4
    pixels = draw(figure)
    assert all(share_of(pixels, colour) > 0.005 for colour in class_colours(names).values())


def test_image_properties_say_every_count(exploration: dict[str, Any], names: dict[str, str]) -> None:
    figure = figures.image_properties(exploration, names)
    said = texts(figure).splitlines()
    for word in ("100×100", "JPEG", "mode RGB", "8 bits", "duplicate", "714", "18", "other"):
        assert word in said
    rest = sum(list(exploration["size"].values())[7:])
    assert str(rest) in said
    assert draw(figure).std() > 10


def test_training_history_marks_stages_and_kept_weights(training_history: dict[str, Any]) -> None:
    figure = figures.training_history(training_history["stages"])
    assert texts(figure).count("fine-tuning") == 2
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert [line.get_xdata()[0] for line in stars] == [5]  # the second stage kept nothing
    assert draw(figure).std() > 10


def test_confusion_matrix_says_counts_and_percent(names: dict[str, str]) -> None:
    figure = drawn_results.confusion_matrix(np.diag([7, 8, 9, 0]) + 1, names)
    said = texts(figure).splitlines()
    assert {"8", "9", "10"} <= set(said)
    assert f"{100 * 8 / 11:.1f}" in said
    assert draw(figure).std() > 10


def test_a_class_without_test_scans_is_drawn_without_a_score(
    results: dict[str, Any], names: dict[str, str]
) -> None:
    report = results["report"]
    report["per_class"]["pituitary"] = {
        **dict.fromkeys(("precision", "recall", "f1")),
        "support": 0,
        "predicted": 0,
    }
    report["roc_curves"]["pituitary"] = None
    assert "recall –" in texts(drawn_results.per_class_metrics(report["per_class"], names))
    legend = drawn_results.roc_curves(report["roc_curves"], names).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-1] == "Pituitary: no test scans"
    assert draw(drawn_results.confusion_matrix(np.zeros((4, 4)), names)).size


def test_calibration_says_errors_and_temperature(results: dict[str, Any]) -> None:
    values = results["report"]["calibration"]
    figure = drawn_results.calibration(values["before"], values["after"], (0.123, 0.045), 1.9)
    said = texts(figure)
    assert "As trained: ECE 0.123" in said
    assert "Temperature 1.90: ECE 0.045" in said
    assert draw(figure).std() > 10


def test_right_is_green_and_wrong_is_red() -> None:
    right = drawn_results.SamplePrediction(gradient(), "Glioma", "Glioma", 0.97)
    wrong = drawn_results.SamplePrediction(gradient(), "Glioma", "Pituitary", 0.55)
    figure = drawn_results.sample_predictions([right, right])
    assert share_of(draw(figure), RIGHT) > 0.001
    assert share_of(draw(figure), WRONG) == 0
    assert "✓ Glioma 97%" in texts(figure)
    figure = drawn_results.sample_predictions([wrong])
    assert share_of(draw(figure), RIGHT) == 0
    assert share_of(draw(figure), WRONG) > 0.001
    assert "✗ Pituitary 55%\nis Glioma" in texts(figure)


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_are_called_so_on_figures_of_images(synthetic: bool) -> None:
    sample = drawn_results.SamplePrediction(gradient(), "Glioma", "Glioma", 0.97)
    for figure in (
        figures.sample_grid([gradient()] * 8, ["Glioma"] * 8, synthetic),
        drawn_results.sample_predictions([sample] * 12, synthetic),
    ):
        assert (SYNTHETIC in texts(figure)) is synthetic


def test_coverage_marks_the_threshold_that_was_found(results: dict[str, Any]) -> None:
    curve = results["report"]["coverage_curve"]
    threshold = curve["threshold"][70]
    figure = drawn_results.coverage(curve, threshold)
    assert f"{curve['coverage'][70]:.1%} answered, {curve['accuracy'][70]:.2%}" in texts(figure)
    (line, dot) = figure.axes[0].lines
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (curve["coverage"][70], curve["accuracy"][70])
    assert line.get_xdata()[-1] == 1
    assert "answered" not in texts(drawn_results.coverage(curve, 1.0))  # it would always abstain


def hot_spot(row: int) -> np.ndarray:
    heat = np.zeros((64, 64), np.float32)
    heat[row : row + 8, 20:28] = 1
    return heat


def test_maps_lie_over_their_scans() -> None:
    right = drawn_results.SamplePrediction(gradient(), "Glioma", "Glioma", 0.97, (hot_spot(4), hot_spot(40)))
    wrong = drawn_results.SamplePrediction(
        gradient(), "Glioma", "Pituitary", 0.6, (hot_spot(4), hot_spot(40))
    )
    figure = drawn_results.gradcam([right, wrong], ["Grad-CAM", "Grad-CAM++"], synthetic=True)
    said = texts(figure)
    assert "✓ Glioma 97%" in said
    assert "✗ Pituitary 60%\nis Glioma" in said
    assert [panel.get_ylabel() for panel in figure.axes[::2]] == ["scan", "Grad-CAM", "Grad-CAM++"]
    scan, first, second = figure.axes[0], figure.axes[2], figure.axes[4]
    assert len(scan.images) == 1
    assert np.argmax(first.images[1].get_array().sum(axis=1)) == 4
    assert np.argmax(second.images[1].get_array().sum(axis=1)) == 40


@pytest.mark.parametrize("count", [1, 3])
def test_mistakes_are_shown_with_both_classes(count: int) -> None:
    sample = drawn_results.SamplePrediction(
        gradient(), "Glioma", "Pituitary", 0.61, (hot_spot(4), hot_spot(40))
    )
    figure = drawn_results.failures([sample] * count, wrong=17)
    said = texts(figure)
    assert said.count("taken for\nPituitary 61%") == said.count("is\nGlioma") == count
    assert f"17 test scans were taken for another class, {count} of them shown." in figure.get_suptitle()


def test_no_mistake_is_said_to_be_none() -> None:
    assert "No test scan" in texts(drawn_results.failures([], wrong=0))


def test_images_and_titles_must_fit() -> None:
    with pytest.raises(ValueError, match="got 1 and 2"):
        figures.sample_grid([gradient()], ["a", "b"])
    with pytest.raises(ValueError, match="at least one prediction"):
        drawn_results.sample_predictions([])


def test_colours_follow_the_class_order_and_never_run_out() -> None:
    colours = class_colours({str(number): "" for number in range(20)})
    assert colours["0"] == CLASS_COLOURS[0]
    assert len(colours) == 20
    assert len(set(CLASS_COLOURS)) == len(CLASS_COLOURS)
