"""Figures about the data and the training; those about the results are in :mod:`brain_mri.report.results`.

Every function takes plain values and returns a matplotlib figure that nobody has saved yet. ``names`` maps
class keys to display names in class order, which also fixes the colours. ``synthetic`` writes on the figure
that its data are drawn by a program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from brain_mri.report.style import (
    GRID,
    INK,
    MUTED,
    WIDTH,
    class_colours,
    heading,
    horizontal_bars,
    new_figure,
)

_TRAINING, _VALIDATION, _KEPT = "#56b4e9", "#0072b2", "#d55e00"


def class_distribution(
    counts: Mapping[str, Mapping[str, int]],
    names: Mapping[str, str],
    synthetic: bool = False,
) -> Figure:
    """Draw how many scans each class has in each split.

    Args:
        counts: Scans by split and class key.
        names: Display names of the class keys, in class order.
        synthetic: Whether to mark the figure as synthetic data.

    Example:
        >>> counts = {"train": {"glioma": 7}, "test": {"glioma": 3}}
        >>> figure = class_distribution(counts, {"glioma": "Glioma"})
    """
    figure, axes = new_figure(WIDTH, 0.8 + 0.28 * len(counts) * len(names), synthetic=synthetic)
    panel: Axes = axes[0, 0]
    height = 0.8 / max(len(counts), 1)
    for place, (split, numbers) in enumerate(counts.items()):
        positions = np.arange(len(names)) + (place - (len(counts) - 1) / 2) * height
        values = [numbers.get(key, 0) for key in names]
        bars = panel.barh(
            positions,
            values,
            height=height * 0.9,
            color=list(class_colours(names).values()),
            alpha=max(1 - 0.3 * place, 0.3),
        )
        panel.bar_label(bars, [f"{value:,} {split}" for value in values], padding=4, fontsize=9, color=INK)
    panel.set_yticks(range(len(names)), list(names.values()))
    panel.invert_yaxis()
    panel.set_xlabel("scans")
    panel.margins(x=0.18)
    heading(panel, "Scans per class and split")
    return figure


def sample_grid(
    images: Sequence[NDArray[np.uint8]], titles: Sequence[str], synthetic: bool = False, columns: int = 4
) -> Figure:
    """Draw example scans, four to a row.

    Args:
        images: Grey pixels, uint8 ``(height, width)`` each; eight make the usual 2×4 grid.
        titles: One line for each image.
        synthetic: Whether to mark the figure as synthetic data.
        columns: Images in a row.

    Raises:
        ValueError: If there is no image, or not one title for each.

    Example:
        >>> figure = sample_grid([np.zeros((8, 8), dtype=np.uint8)], ["Glioma"])
    """
    if not images or len(images) != len(titles):
        raise ValueError(
            f"Expected at least one image and a title for each, got {len(images)} and {len(titles)}."
        )
    rows = -(-len(images) // columns)
    figure, axes = new_figure(WIDTH, 2.0 * rows, rows, columns, synthetic)
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, image, title in zip(axes.flat, images, titles, strict=False):
        panel.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
        panel.set_title(title, fontsize=10, color=INK)
    return figure


def image_properties(
    exploration: Mapping[str, Any], names: Mapping[str, str], synthetic: bool = False
) -> Figure:
    """Draw what the files are like (sizes, modes, formats, bit depths, brightness) and what became of them.

    Args:
        exploration: The catalog entry ``exploration``, made by ``cohort.summary.summarise_cohort``; used are
            ``size``, ``mode``, ``format``, ``bit_depth``, ``status`` (counts by name), and ``brightness``
            (``edges``, and ``counts`` by class).
        names: Display names of the class keys, in class order.
        synthetic: Whether to mark the figure as synthetic data.
    """
    figure, axes = new_figure(WIDTH, 5.6, 2, 2, synthetic)
    kinds = {
        **exploration["format"],
        **{f"mode {name}": count for name, count in exploration["mode"].items()},
        **{f"{name} bits": count for name, count in exploration["bit_depth"].items()},
    }
    panels = (
        (axes[0, 0], "Most frequent sizes, in pixels", _first(exploration["size"])),
        (axes[0, 1], "Formats, modes, bit depths", kinds),
        (axes[1, 1], "What became of the files", exploration["status"]),
    )
    for panel, title, counts in panels:
        horizontal_bars(panel, counts.keys(), counts.values(), MUTED)
        heading(panel, title)
    _draw_brightness(axes[1, 0], exploration["brightness"], names)
    return figure


def training_history(stages: Sequence[Mapping[str, Any]], synthetic: bool = False) -> Figure:
    """Draw loss and accuracy over the epochs of all stages.

    Args:
        stages: The ``stages`` of ``training_history``: each has a ``name``, its ``epochs`` (``loss``,
            ``accuracy``, ``validation_loss``, ``validation_accuracy``) and the number of its ``best_epoch``,
            whose weights were kept (0 where those from before the stage were).
        synthetic: Whether to mark the figure as synthetic data.

    Example:
        >>> epoch = {"loss": 1.0, "accuracy": 0.5, "validation_loss": 1.1, "validation_accuracy": 0.4}
        >>> figure = training_history([{"name": "from scratch", "epochs": [epoch], "best_epoch": 1}])
    """
    figure, axes = new_figure(WIDTH, 3.2, columns=2, synthetic=synthetic)
    for panel, measure in zip(axes[0], ("loss", "accuracy"), strict=True):
        _draw_curves(panel, stages, measure)
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 1].set_ylim(top=1.005)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    kept = dict(zip(labels, handles, strict=True))
    figure.legend(
        kept.values(), kept.keys(), loc="outside lower center", ncols=len(kept), frameon=False, fontsize=9
    )
    return figure


def _first(counts: Mapping[str, int], shown: int = 7) -> dict[str, int]:
    """Keep the first entries and add up the rest as "other"."""
    kept = dict(list(counts.items())[:shown])
    rest = sum(counts.values()) - sum(kept.values())
    return {**kept, "other": kept.get("other", 0) + rest} if rest else kept


def _draw_brightness(panel: Axes, brightness: Mapping[str, Any], names: Mapping[str, str]) -> None:
    for key, colour in class_colours(names).items():
        counts = np.asarray(brightness["counts"].get(key, []), dtype=float)
        if counts.any():
            share = 100 * counts / counts.sum()
            panel.stairs(share, brightness["edges"], color=colour, linewidth=1.5, label=names[key])
    panel.set(xlabel="mean grey value of a scan (0–255)", ylabel="% of the class")
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False, fontsize=8)
    heading(panel, "Brightness")


def _draw_curves(panel: Axes, stages: Sequence[Mapping[str, Any]], measure: str) -> None:
    epoch = 0
    for stage in stages:
        records = stage["epochs"]
        numbers = np.arange(epoch + 1, epoch + 1 + len(records))
        validation = [record[f"validation_{measure}"] for record in records]
        style: dict[str, Any] = {"linewidth": 1.8, "marker": "o", "markersize": 3}
        panel.plot(
            numbers, [record[measure] for record in records], color=_TRAINING, label="training", **style
        )
        panel.plot(numbers, validation, color=_VALIDATION, label="validation", **style)
        if best := stage["best_epoch"]:
            place = (numbers[best - 1], validation[best - 1])
            panel.plot(*place, "*", markersize=11, color=_KEPT, label="kept weights")
        if epoch:
            panel.axvline(epoch + 0.5, color=MUTED, linewidth=1, linestyle=":")
        corner = (epoch + 0.6, 1.01)
        panel.annotate(stage["name"], corner, xycoords=("data", "axes fraction"), fontsize=8, color=MUTED)
        epoch += len(records)
    panel.set_xlim(0.5, max(epoch, 1) + 0.5)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("epoch")
    panel.grid(axis="y", color=GRID)
    panel.set_title(measure.capitalize(), loc="left", fontsize=11, color=INK, fontweight="bold", pad=16)
