"""One look for all figures: colours, type sizes, and the words that mark synthetic data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

INK = "#1f2933"
MUTED = "#6b7785"
GRID = "#e3e7eb"
RIGHT = "#1a7f37"
WRONG = "#c62828"
WARNING = "#8a4b00"
# Okabe and Ito's colours, which colour-blind readers tell apart (https://jfly.uni-koeln.de/color/).
CLASS_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6a55", "#000000")
WIDTH = 6.2  # inches; 9-point text in it can still be read on a phone
SYNTHETIC = "Synthetic data: drawn by a program, no patients"


def class_colours(names: Mapping[str, str]) -> dict[str, str]:
    """Give every class key its fixed colour.

    Args:
        names: Display name of each class key, in class order.

    Example:
        >>> class_colours({"glioma": "Glioma"})
        {'glioma': '#d55e00'}
    """
    return {key: CLASS_COLOURS[index % len(CLASS_COLOURS)] for index, key in enumerate(names)}


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, synthetic: bool = False
) -> tuple[Figure, NDArray[Any]]:
    """Start a figure with a grid of axes in the common look.

    Args:
        width: In inches.
        height: In inches, without the strip that a synthetic mark adds.
        rows: Rows of axes.
        columns: Columns of axes.
        synthetic: Whether the figure is marked as made from synthetic data.

    Returns:
        The figure, and its axes as an object array of shape ``(rows, columns)``.

    Example:
        >>> figure, axes = new_figure(WIDTH, 3, columns=2)
        >>> axes.shape
        (1, 2)
    """
    strip = 0.3 if synthetic else 0.0
    share = strip / (height + strip)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, rect=(0, share, 1, 1 - share))
    figure = Figure(figsize=(width, height + strip), layout=layout, facecolor="white")
    if synthetic:
        figure.text(0.5, share / 4, SYNTHETIC, ha="center", va="bottom", fontsize=10, color=WARNING)
    axes = figure.subplots(rows, columns, squeeze=False)
    for one in axes.flat:
        tidy(one)
    return figure, axes


def tidy(axes: Axes) -> None:
    """Take away what carries no information, and set the common type sizes."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    axes.set_axisbelow(True)


def heading(axes: Axes, text: str) -> None:
    """Write the panel's title, left-aligned."""
    axes.set_title(text, loc="left", fontsize=11, color=INK, fontweight="bold")


def horizontal_bars(
    axes: Axes,
    labels: Iterable[str],
    values: Iterable[float],
    colour: str,
    texts: Sequence[str] | None = None,
) -> None:
    """Draw labelled horizontal bars from the top down, each with its value, or with a text."""
    labels, values = list(labels), list(values)
    texts = texts or [f"{value:,}" for value in values]
    bars = axes.barh(range(len(values)), values, color=colour, height=0.7)
    axes.bar_label(bars, labels=texts, padding=3, fontsize=9, color=INK)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*values, 1]) * 1.2)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
