from __future__ import annotations

from matplotlib.figure import Figure

from brain_mri.report import speed
from brain_mri.report.style import SYNTHETIC

RUN = {"place": "local", "workers": 1, "images": 20_000, "cold_seconds": 30.0, "warm_seconds": 20.0}


def said(figure: Figure) -> list[str]:
    """Everything that is written on a figure of one panel."""
    (panel,) = figure.axes
    labels = [*panel.get_yticklabels(), *panel.texts, *figure.texts]
    return [*(label.get_text() for label in labels), panel.get_ylabel(), panel.get_title("left")]


def test_throughput_says_every_stage_and_rate() -> None:
    figure = speed.throughput_stages({"decode": 1640.4, "training: from scratch": 118.2}, synthetic=True)
    assert {"decode", "training: from scratch", "1,640", "118", SYNTHETIC} <= set(said(figure))


def test_runtime_draws_a_line_a_place_with_and_without_the_start() -> None:
    runs = [RUN, {**RUN, "workers": 2, "warm_seconds": 11.0}, {**RUN, "place": "cluster", "workers": 2}]
    figure = speed.runtime_vs_workers(runs)
    (panel,) = figure.axes
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines}
    assert drawn["local: a later pass"] == ([1, 2], [20.0, 11.0])
    assert drawn["local: start and first pass"] == ([1, 2], [30.0, 30.0])
    assert drawn["cluster: a later pass"] == ([2], [20.0])
    assert "seconds for 20,000 images" in said(figure)
    assert SYNTHETIC not in said(figure)


def test_runtime_says_that_nothing_was_measured() -> None:
    assert speed.NOT_MEASURED in said(speed.runtime_vs_workers([]))
