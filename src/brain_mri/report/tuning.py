"""Figures about a search for the best configuration; conventions as in :mod:`brain_mri.report.figures`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brain_mri.report.style import CLASS_COLOURS, GRID, MUTED, WIDTH, heading, horizontal_bars, new_figure

Trials = Sequence[Mapping[str, Any]]
"""Each has ``number``, ``status``, ``final``, ``configuration`` (JSON), and the metric or None."""

_MARKS = {"complete": ("o", CLASS_COLOURS[1]), "pruned": ("v", MUTED), "failed": ("x", CLASS_COLOURS[0])}


def search_history(trials: Trials, metric: str, synthetic: bool = False) -> Figure:
    """Draw what every trial reached, and the best so far.

    Args:
        trials: In their order; those that reached nothing are drawn at the bottom.
        metric: What is drawn.
        synthetic: Whether to mark the figure as synthetic data.
    """
    figure, axes = new_figure(WIDTH, 3.2, synthetic=synthetic)
    panel = axes[0, 0]
    searched = [trial for trial in trials if not trial["final"]]
    reached = [_value(trial, metric) for trial in searched]
    known = [value for value in reached if value is not None]
    bottom = min(known, default=0.0)
    for status, (mark, colour) in _MARKS.items():
        points = [
            (trial["number"], bottom if value is None else value)
            for trial, value in zip(searched, reached, strict=True)
            if trial["status"] == status or (status == "failed" and trial["status"] == "lost")
        ]
        if points:
            name = "failed or lost" if status == "failed" else status
            panel.scatter(*zip(*points, strict=True), marker=mark, color=colour, label=name, s=28)
    complete = [
        value if value is not None and trial["status"] == "complete" else -np.inf
        for trial, value in zip(searched, reached, strict=True)
    ]
    best = np.maximum.accumulate(complete) if complete else np.array([])
    numbers = np.array([trial["number"] for trial in searched])
    panel.step(
        numbers[np.isfinite(best)],
        best[np.isfinite(best)],
        where="post",
        color=CLASS_COLOURS[2],
        label="best so far",
    )
    panel.set(xlabel="trial", ylabel=metric)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(axis="y", color=GRID)
    panel.legend(frameon=False, fontsize=8)
    heading(panel, "What the trials reached on validation")
    return figure


def parallel_coordinates(trials: Trials, metric: str, synthetic: bool = False) -> Figure:
    """Draw a line a complete trial through its choices to what it reached; darker is better."""
    complete = [trial for trial in trials if trial["status"] == "complete" and not trial["final"]]
    configurations = [json.loads(trial["configuration"]) for trial in complete]
    names = sorted({name for configuration in configurations for name in configuration})
    figure, axes = new_figure(WIDTH, 3.6, synthetic=synthetic)
    panel = axes[0, 0]
    columns = [_places([configuration.get(name) for configuration in configurations]) for name in names]
    values = [float(trial[metric]) for trial in complete]
    columns.append(_places(values))
    low, high = min(values, default=0.0), max(values, default=1.0)
    for number, value in enumerate(values):
        share = (value - low) / (high - low) if high > low else 1.0
        line = [column[number] for column, _ in columns]
        panel.plot(
            range(len(columns)), line, color=CLASS_COLOURS[1], alpha=0.15 + 0.85 * share**2, linewidth=1.4
        )
    for place, (_, (bottom, top)) in enumerate(columns):
        panel.axvline(place, color=GRID, zorder=0)
        panel.text(place, -0.04, bottom, ha="center", va="top", fontsize=8)
        panel.text(place, 1.04, top, ha="center", va="bottom", fontsize=8)
    panel.set_xticks(range(len(columns)), [name.replace("_", "\n") for name in (*names, metric)], fontsize=8)
    panel.tick_params(axis="x", pad=14)
    panel.set(ylim=(-0.02, 1.02), yticks=[])
    panel.spines["left"].set_visible(False)
    panel.set_title("Choices and what they reached", loc="left", fontsize=11, fontweight="bold", pad=22)
    return figure


def dimension_importance(importances: Mapping[str, float], synthetic: bool = False) -> Figure:
    """Draw how much each dimension decides, or say that too few trials are complete."""
    if not importances:
        figure, axes = new_figure(WIDTH, 1.0, synthetic=synthetic)
        axes[0, 0].set_axis_off()
        axes[0, 0].text(
            0.5, 0.5, "Too few trials are complete to say what decides.", ha="center", color=MUTED
        )
        return figure
    ordered = dict(sorted(importances.items(), key=lambda item: -item[1]))
    figure, axes = new_figure(WIDTH, 0.8 + 0.35 * len(ordered), synthetic=synthetic)
    horizontal_bars(axes[0, 0], ordered, [round(value, 2) for value in ordered.values()], CLASS_COLOURS[1])
    heading(axes[0, 0], "Share of the differences that each explains")
    return figure


def _value(trial: Mapping[str, Any], metric: str) -> float | None:
    value = trial[metric]
    return None if value is None or not np.isfinite(value) else float(value)


def _places(values: Sequence[Any]) -> tuple[list[float], tuple[str, str]]:
    """Where values stand between 0 and 1, and what stands there; numbers by size, others in their order."""
    known = sorted({value for value in values if isinstance(value, int | float)})
    if len(known) == len({json.dumps(value) for value in values}) and len(known) > 1:
        numbers = np.array([float(value) for value in values])
        if known[0] > 0 and known[-1] / known[0] > 20:
            numbers = np.log(numbers)
        spread = numbers.max() - numbers.min()
        return ((numbers - numbers.min()) / spread).tolist(), (f"{known[0]:.3g}", f"{known[-1]:.3g}")
    words = sorted({json.dumps(value) for value in values})
    step = 1 / max(len(words) - 1, 1)
    return [words.index(json.dumps(value)) * step for value in values], (
        words[0] if words else "",
        words[-1] if len(words) > 1 else "",
    )
