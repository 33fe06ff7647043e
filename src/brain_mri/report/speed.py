"""Figures about how fast things went; conventions as in :mod:`brain_mri.report.figures`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brain_mri.report.style import (
    CLASS_COLOURS,
    GRID,
    MUTED,
    WIDTH,
    heading,
    horizontal_bars,
    new_figure,
)

NOT_MEASURED = "Not measured here: run benchmarks/preprocessing.py --section FILE."


def throughput_stages(
    rates: Mapping[str, float], synthetic: bool = False, megapixels: Mapping[str, float] | None = None
) -> Figure:
    """Draw how many images a second every stage took.

    Args:
        rates: Images a second by the name of the stage, in the order of the stages.
        synthetic: Whether to mark the figure as synthetic data.
        megapixels: Likewise a second, to be written beside them.

    Example:
        >>> figure = throughput_stages({"decode and resize": 1640.2, "training": 118.0})
    """
    figure, axes = new_figure(WIDTH, 0.8 + 0.4 * len(rates), synthetic=synthetic)
    texts = [_rounded(rate) for rate in rates.values()]
    if megapixels:
        texts = [f"{text} ({_rounded(megapixels[stage])})" for stage, text in zip(rates, texts, strict=True)]
    horizontal_bars(axes[0, 0], rates, rates.values(), MUTED, texts)
    heading(axes[0, 0], "Images (megapixels) a second" if megapixels else "Images a second")
    return figure


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def runtime_vs_workers(runs: Sequence[Mapping[str, Any]], synthetic: bool = False) -> Figure:
    """Draw how long preprocessing took with more and more workers, or say that nobody has measured it.

    Args:
        runs: Each has ``place`` ("local", "cluster"), ``workers``, ``images``, ``cold_seconds`` (start and
            first pass) and ``warm_seconds`` (a later pass).
        synthetic: Whether to mark the figure as synthetic data.

    Example:
        >>> run = {"place": "local", "workers": 1, "images": 600, "cold_seconds": 9.0, "warm_seconds": 1.5}
        >>> figure = runtime_vs_workers([run, {**run, "workers": 2, "warm_seconds": 0.8}])
    """
    if not runs:
        figure, axes = new_figure(WIDTH, 1.0)
        axes[0, 0].set_axis_off()
        axes[0, 0].text(0.5, 0.5, NOT_MEASURED, ha="center", va="center", fontsize=10, color=MUTED)
        return figure
    figure, axes = new_figure(WIDTH, 3.2, synthetic=synthetic)
    draw_runtime(axes[0, 0], runs)
    return figure


def runtime_on_workers(
    expected: Sequence[tuple[int, float]], measured: tuple[int, float], what: str
) -> Figure:
    """Draw how long measured tasks would take on more or fewer workers, and how long they took.

    Args:
        expected: Workers, and seconds by the tasks' own seconds.
        measured: Workers at most at a time, and seconds during which any worked.
        what: Was worked on.

    Example:
        >>> figure = runtime_on_workers([(1, 9.0), (2, 4.6)], (2, 5.1), "600 photographs")
    """
    figure, axes = new_figure(WIDTH, 3.2)
    panel = axes[0, 0]
    workers, seconds = zip(*expected, strict=True)
    label = "expected: tasks as long as they were"
    panel.plot(workers, seconds, "--", marker="o", markersize=3, color=MUTED, label=label)
    panel.plot(*measured, marker="o", markersize=8, color=CLASS_COLOURS[0], linestyle="", label="measured")
    panel.set(xlabel="workers, one core each", ylabel=f"seconds for {what}")
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(axis="y", color=GRID)
    panel.legend(frameon=False, fontsize=8)
    heading(panel, "Runtime against workers")
    return figure


def draw_curves(panel: Axes, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw what trainings had reached when into a panel.

    Args:
        panel: To draw into.
        curves: By the name of each training, (seconds since its start, validation accuracy) an epoch.
    """
    for (name, points), colour in zip(curves.items(), (*CLASS_COLOURS, MUTED), strict=False):
        seconds, accuracies = zip(*points, strict=True)
        panel.plot(seconds, accuracies, marker="o", markersize=3, color=colour, label=name)
    panel.set(xlabel="seconds since the start of the process", ylabel="accuracy")
    panel.grid(axis="y", color=GRID)
    panel.legend(frameon=False, fontsize=8)
    heading(panel, "Validation accuracy over time")


def draw_runtime(panel: Axes, runs: Iterable[Mapping[str, Any]]) -> None:
    """Draw the runs of :func:`runtime_vs_workers` into a panel: a colour a place, dashed with the start."""
    runs = list(runs)
    for place, colour in zip(dict.fromkeys(run["place"] for run in runs), CLASS_COLOURS, strict=False):
        chosen = [run for run in runs if run["place"] == place]
        workers = [run["workers"] for run in chosen]
        for measure, label, line in (
            ("cold_seconds", "start and first pass", "--"),
            ("warm_seconds", "a later pass", "-"),
        ):
            seconds = [run[measure] for run in chosen]
            panel.plot(workers, seconds, line, marker="o", color=colour, label=f"{place}: {label}")
    panel.set(
        xlabel="workers, one core each", ylabel=f"seconds for {max(run['images'] for run in runs):,} images"
    )
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(axis="y", color=GRID)
    panel.legend(frameon=False, fontsize=8)
    heading(panel, "Runtime against workers")
