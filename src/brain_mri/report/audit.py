"""Figures about an audit; conventions as in :mod:`brain_mri.report.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from brain_mri.report.style import CLASS_COLOURS, GRID, INK, MUTED, WIDTH, heading, new_figure

_ACROSS = 3


def robustness_curves(rows: Sequence[Mapping[str, Any]], synthetic: bool = False) -> Figure:
    """Draw accuracy, and the share that is still answered, against the degree to which scans are spoilt.

    Args:
        rows: Each with ``kind``, ``unit``, ``level``, ``accuracy``, ``abstained``.
        synthetic: Whether to mark the figure as synthetic data.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not rows:
        raise ValueError("Expected at least one row of robustness, got none.")
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    down = -(-len(kinds) // _ACROSS)
    figure, axes = new_figure(WIDTH, 2.2 * down, down, _ACROSS, synthetic)
    for panel in axes.flat[len(kinds) :]:
        panel.set_axis_off()
    lowest = min(min(row["accuracy"], 1 - row["abstained"]) for row in rows)
    for place, (panel, kind) in enumerate(zip(axes.flat, kinds, strict=False)):
        own = sorted((row for row in rows if row["kind"] == kind), key=lambda row: row["level"])
        levels = [row["level"] for row in own]
        panel.plot(levels, [row["accuracy"] for row in own], "o-", color=CLASS_COLOURS[1], markersize=3)
        panel.plot(levels, [1 - row["abstained"] for row in own], ":", color=MUTED)
        panel.set_ylim(max(0.0, lowest - 0.05), 1.02)
        panel.grid(color=GRID)
        panel.set_xlabel(own[0]["unit"], fontsize=8)
        if place % _ACROSS == 0:
            panel.set_ylabel("accuracy (dotted: answered)", fontsize=8)
        heading(panel, kind)
    return figure


def stranger_distances(
    known: Sequence[float],
    strangers: Mapping[str, Mapping[str, Any]],
    threshold: float,
    synthetic: bool = False,
) -> Figure:
    """Draw how far test scans and strangers lie from the training scans.

    Args:
        known: Distances of the test scans.
        strangers: By kind, each with ``distances``.
        threshold: Above which a picture is refused.
        synthetic: Whether to mark the figure as synthetic data.
    """
    figure, axes = new_figure(WIDTH, 3.0, synthetic=synthetic)
    panel = axes[0, 0]
    groups = {"test scans": known} | {
        f"{kind} pictures": kinds["distances"] for kind, kinds in strangers.items()
    }
    top = max(max(values) for values in groups.values())
    edges = np.linspace(0, 1.02 * top, 60)
    for (name, values), colour in zip(groups.items(), CLASS_COLOURS[1:], strict=False):
        weights = np.full(len(values), 1 / len(values))
        panel.hist(values, edges, weights=weights, color=colour, alpha=0.6, label=f"{len(values):,} {name}")
    panel.set_ylim(top=1.35 * panel.get_ylim()[1])  # for the legend
    panel.axvline(threshold, color=INK, linestyle="--", linewidth=1)
    panel.annotate(
        "refused →", (threshold, panel.get_ylim()[1]), (4, -10), textcoords="offset points", fontsize=8
    )
    panel.set(xlabel="distance from the training scans", ylabel="share")
    panel.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    heading(panel, "What is unlike the training scans")
    return figure
