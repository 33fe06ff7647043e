"""Figures about the results on the test split; conventions as in :mod:`brain_mri.report.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from brain_mri.evaluation.calibration import ReliabilityBin
from brain_mri.evaluation.metrics import ClassScores, RocCurve
from brain_mri.evaluation.selective import CoverageCurve
from brain_mri.report.style import GRID, INK, MUTED, RIGHT, WIDTH, WRONG, class_colours, heading, new_figure

_FEW = 10


@dataclass(frozen=True)
class SamplePrediction:
    """One test scan with what it is and what it was taken for.

    Attributes:
        pixels: Grey, uint8 ``(height, width)``.
        label: Display name of its class.
        predicted: Display name of the predicted class.
        confidence: Calibrated probability of the predicted class, in [0, 1].
        maps: Where the network saw a class, float32 ``(height, width)`` in [0, 1]; which, says the figure.
    """

    pixels: NDArray[np.uint8]
    label: str
    predicted: str
    confidence: float
    maps: tuple[NDArray[np.float32], ...] = ()


def confusion_matrix(counts: ArrayLike, names: Mapping[str, str], synthetic: bool = False) -> Figure:
    """Draw what every class was taken for, in scans and in percent of the class.

    Args:
        counts: Shape ``(k, k)``, true classes in rows.
        names: Display names of the class keys, in class order.
        synthetic: Whether to mark the figure as synthetic data.

    Example:
        >>> figure = confusion_matrix([[9, 1], [0, 8]], {"glioma": "Glioma", "notumor": "No tumour"})
    """
    numbers = np.asarray(counts, dtype=np.int64)
    share = numbers / np.maximum(numbers.sum(axis=1, keepdims=True), 1)
    size = 0.75 * len(names)
    figure, axes = new_figure(WIDTH, max(size, 2.2) + 1.2, columns=2, synthetic=synthetic)
    texts = [[f"{value:,}" for value in row] for row in numbers]
    _draw_matrix(axes[0, 0], share, texts, names, "Scans")
    texts = [[f"{100 * value:.1f}" for value in row] for row in share]
    _draw_matrix(axes[0, 1], share, texts, names, "Percent of the true class")
    axes[0, 0].set_ylabel("true class")
    axes[0, 1].set_yticklabels([])
    return figure


def per_class_metrics(
    report: Mapping[str, ClassScores], names: Mapping[str, str], synthetic: bool = False
) -> Figure:
    """Draw precision, recall and F1 of every class as bars.

    Args:
        report: As :func:`brain_mri.evaluation.metrics.classification_report` returns it.
        names: Display names of the class keys, in class order.
        synthetic: Whether to mark the figure as synthetic data.
    """
    figure, axes = new_figure(WIDTH, 0.8 + 0.8 * len(names), synthetic=synthetic)
    panel: Axes = axes[0, 0]
    height = 0.8 / 3
    for place, score in enumerate(("precision", "recall", "f1")):
        values = [report[key][score] for key in names]  # type: ignore[literal-required]  # the three literals above
        bars = panel.barh(
            np.arange(len(names)) + (place - 1) * height,
            [value or 0.0 for value in values],
            height=height * 0.9,
            color=list(class_colours(names).values()),
            alpha=1 - 0.25 * place,
        )
        word = "F1" if score == "f1" else score
        labels = [f"{word} " + ("–" if value is None else f"{value:.3f}") for value in values]
        panel.bar_label(bars, labels, padding=4, fontsize=9, color=INK)
    panel.set_yticks(
        range(len(names)), [f"{name}\n{report[key]['support']:,} scans" for key, name in names.items()]
    )
    panel.invert_yaxis()
    panel.set_xlim(0, 1.22)
    panel.set_xticks(np.linspace(0, 1, 6))
    heading(panel, "Precision, recall and F1 per class")
    return figure


def roc_curves(
    curves: Mapping[str, RocCurve | None], names: Mapping[str, str], synthetic: bool = False
) -> Figure:
    """Draw one-vs-rest ROC curves, whole and enlarged at the corner where good classifiers differ.

    Args:
        curves: As :func:`brain_mri.evaluation.metrics.roc_curves` returns them.
        names: Display names of the class keys, in class order.
        synthetic: Whether to mark the figure as synthetic data.
    """
    figure, axes = new_figure(WIDTH, 3.8, columns=2, synthetic=synthetic)
    whole, corner = axes[0]
    for key, colour in class_colours(names).items():
        curve = curves[key]
        if curve is None:
            whole.plot([], [], color=colour, label=f"{names[key]}: no test scans")
            continue
        for panel in (whole, corner):
            panel.plot(
                curve["false_positive_rate"],
                curve["true_positive_rate"],
                color=colour,
                linewidth=1.8,
                label=f"{names[key]}: AUC {curve['auc']:.4f}",
            )
    whole.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    whole.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), ylabel="true positive rate (recall)")
    corner.set(xlim=(-0.002, 0.2), ylim=(0.8, 1.002))
    corner.set(xticks=np.linspace(0, 0.2, 5), yticks=np.linspace(0.8, 1, 5))
    for panel, title in ((whole, "One class against the others"), (corner, "The upper left corner")):
        panel.set(aspect="equal", xlabel="false positive rate")
        panel.grid(color=GRID)
        heading(panel, title)
    whole.legend(loc="lower right", frameon=False, fontsize=8)
    return figure


def calibration(
    before: Sequence[ReliabilityBin],
    after: Sequence[ReliabilityBin],
    errors: tuple[float, float],
    temperature: float,
    synthetic: bool = False,
) -> Figure:
    """Draw reliability diagrams before and after temperature scaling.

    Args:
        before: Bins of the network's own probabilities.
        after: Bins of the calibrated probabilities.
        errors: Expected calibration error before and after.
        temperature: What the logits were divided by.
        synthetic: Whether to mark the figure as synthetic data.
    """
    figure, axes = new_figure(WIDTH, 4.4, 2, 2, synthetic)
    titles = (f"As trained: ECE {errors[0]:.3f}", f"Temperature {temperature:.2f}: ECE {errors[1]:.3f}")
    grid = axes[0, 0].get_gridspec()
    grid.set_height_ratios([3, 1])
    for column, (bins, title) in enumerate(zip((before, after), titles, strict=True)):
        diagram, volume = axes[:, column]
        filled = [step for step in bins if step["count"]]
        lower, counts = [step["lower"] for step in filled], [step["count"] for step in filled]
        width = 0.92 * (bins[0]["upper"] - bins[0]["lower"])
        # A handful of scans says little about accuracy, and the bar should not shout.
        shades = [to_rgba("#0072b2", 0.8 if count >= _FEW else 0.25) for count in counts]
        accuracy = [step["accuracy"] for step in filled]
        diagram.bar(lower, accuracy, width=width, align="edge", color=shades)
        diagram.plot([step["confidence"] for step in filled], accuracy, "o", color=INK, markersize=3)
        diagram.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        diagram.set(xlim=(0, 1), ylim=(0, 1.02), xticklabels=[])
        heading(diagram, title)
        volume.bar(lower, counts, width=width, align="edge", color=MUTED)
        volume.set(xlim=(0, 1), xlabel=f"confidence (pale: fewer than {_FEW} scans)")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("scans")
    return figure


def coverage(curve: CoverageCurve, threshold: float, synthetic: bool = False) -> Figure:
    """Draw the accuracy of the answers against the share of scans that are answered.

    Args:
        curve: As :func:`brain_mri.evaluation.selective.coverage_curve` returns it.
        threshold: Confidence below which the classifier abstains; it is marked.
        synthetic: Whether to mark the figure as synthetic data.
    """
    figure, axes = new_figure(WIDTH, 3.2, synthetic=synthetic)
    panel: Axes = axes[0, 0]
    share, accuracy = np.array(curve["coverage"]), np.array(curve["accuracy"])
    panel.step(share, accuracy, where="post", color="#0072b2", linewidth=1.8)
    answered = np.array(curve["threshold"]) >= threshold
    if answered.any():
        place = int(np.flatnonzero(answered)[-1])
        panel.plot(share[place], accuracy[place], "o", color=INK)
        gained = f"{share[place]:.1%} answered, {accuracy[place]:.2%} of those right"
        panel.annotate(
            f"confidence ≥ {threshold:.2f}:\n{gained}",
            (share[place], accuracy[place]),
            xytext=(-8, -34),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color=INK,
        )
    lowest = float(accuracy[share >= 0.1].min()) if (share >= 0.1).any() else float(accuracy.min())
    panel.set(
        xlim=(0, 1.01), ylim=(max(0.0, lowest - 0.25 * (1 - lowest) - 0.002), 1 + 0.02 * (1.05 - lowest))
    )
    panel.set(xlabel="coverage (share of scans that are answered)", ylabel="accuracy of the answers")
    panel.grid(color=GRID)
    heading(panel, "What abstaining gains")
    return figure


def sample_predictions(
    samples: Sequence[SamplePrediction], synthetic: bool = False, columns: int = 4
) -> Figure:
    """Draw test scans with their predictions: right in green, wrong in red, four to a row.

    Args:
        samples: Twelve make the usual 3×4 grid.
        synthetic: Whether to mark the figure as synthetic data.
        columns: Images in a row.

    Raises:
        ValueError: If there is no sample.
    """
    if not samples:
        raise ValueError("Expected at least one prediction to draw, got none.")
    rows = -(-len(samples) // columns)
    figure, axes = new_figure(WIDTH, 2.15 * rows, rows, columns, synthetic)
    for panel in axes.flat[len(samples) :]:
        panel.set_axis_off()
    for panel, sample in zip(axes.flat, samples, strict=False):
        _draw_overlay(panel, sample.pixels, None)
        colour = _verdict_colour(sample)
        panel.set_title(_verdict(sample), fontsize=9, color=colour)
        for spine in panel.spines.values():
            spine.set(visible=True, color=colour, linewidth=2.5)
    return figure


def gradcam(samples: Sequence[SamplePrediction], methods: Sequence[str], synthetic: bool = False) -> Figure:
    """Draw scans above the maps of what spoke for the predicted class, a column a scan, a row a method.

    Args:
        samples: With a map for each method, in their order.
        methods: What the maps are called.
        synthetic: Whether to mark the figure as synthetic data.
    """
    rows = 1 + len(methods)
    figure, axes = new_figure(WIDTH, 0.3 + rows * 0.97 * WIDTH / len(samples), rows, len(samples), synthetic)
    for column, sample in enumerate(samples):
        for panel, heat in zip(axes[:, column], (None, *sample.maps), strict=True):
            _draw_overlay(panel, sample.pixels, heat)
        axes[0, column].set_title(_verdict(sample), fontsize=9, color=_verdict_colour(sample))
    for panel, method in zip(axes[:, 0], ("scan", *methods), strict=True):
        panel.set_ylabel(method, fontsize=9)
    return figure


def failures(samples: Sequence[SamplePrediction], wrong: int, synthetic: bool = False) -> Figure:
    """Draw mistakes: the scan, what spoke for the class it was taken for, and for the one it has.

    Args:
        samples: With two maps each: of the predicted and of the true class. There may be none.
        wrong: How many mistakes there were in all.
        synthetic: Whether to mark the figure as synthetic data.
    """
    if not samples:
        figure, axes = new_figure(WIDTH, 1.2, synthetic=synthetic)
        axes[0, 0].set_axis_off()
        axes[0, 0].text(0.5, 0.5, "No test scan was taken for another class.", ha="center", va="center")
        return figure
    across = 2 if len(samples) > 1 else 1
    rows = -(-len(samples) // across)
    figure, axes = new_figure(
        WIDTH, 0.3 + rows * (0.4 + 0.9 * WIDTH / (3 * across)), rows, 3 * across, synthetic
    )
    panels = axes.reshape(rows * across, 3)
    for trio in panels[len(samples) :]:
        for panel in trio:
            panel.set_axis_off()
    for trio, sample in zip(panels, samples, strict=False):
        titles = (
            f"is\n{sample.label}",
            f"taken for\n{sample.predicted} {sample.confidence:.0%}",
            f"spoke for\n{sample.label}",
        )
        for panel, heat, title in zip(trio, (None, *sample.maps), titles, strict=True):
            _draw_overlay(panel, sample.pixels, heat)
            panel.set_title(title, fontsize=8, color=WRONG if heat is sample.maps[0] else INK)
    shown = "" if wrong == len(samples) else f", {len(samples)} of them shown"
    figure.suptitle(f"{wrong} test scans were taken for another class{shown}.", fontsize=10)
    return figure


def _verdict(sample: SamplePrediction) -> str:
    """Predicted class and confidence; the marks say in shape what the colours say."""
    if sample.label == sample.predicted:
        return f"✓ {sample.predicted} {sample.confidence:.0%}"
    return f"✗ {sample.predicted} {sample.confidence:.0%}\nis {sample.label}"


def _verdict_colour(sample: SamplePrediction) -> str:
    return RIGHT if sample.label == sample.predicted else WRONG


def _draw_overlay(panel: Axes, pixels: NDArray[np.uint8], heat: NDArray[np.float32] | None) -> None:
    """A scan, under a map that lets it shine through where nothing spoke for the class."""
    panel.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    if heat is not None:
        panel.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * np.sqrt(heat))
    panel.set(xticks=[], yticks=[])
    for spine in panel.spines.values():
        spine.set_visible(False)


def _draw_matrix(
    panel: Axes,
    share: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    names: Mapping[str, str],
    title: str,
) -> None:
    panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            colour = "white" if share[row, column] > 0.55 else INK
            panel.text(column, row, text, ha="center", va="center", fontsize=11, color=colour)
    labels = list(names.values())
    panel.set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(labels)), labels)
    panel.set_xlabel("predicted class")
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    heading(panel, title)
