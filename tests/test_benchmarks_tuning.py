"""What `benchmarks/tuning.py` rests on: its sums are right, and its round is one that the project takes."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.tuning import ROUND, TRIALS, overlap
from brain_mri.pipelines.tuning.parameters import TuningParameters


@pytest.mark.parametrize(
    ("started", "seconds", "expected"),
    [([0, 0], [10, 10], 2), ([0, 10], [10, 10], 1), ([0, 0, 10], [10, 10, 5], 25 / 15)],
)
def test_overlap_is_how_many_run_at_once_in_the_mean(
    started: list[float], seconds: list[float], expected: float
) -> None:
    assert overlap(pd.DataFrame({"started": started, "seconds": seconds})) == pytest.approx(expected)


def test_the_round_is_one_of_the_default_space() -> None:
    given = dict(item.removeprefix("tuning.").split("=") for item in ROUND.split(","))
    parameters = TuningParameters.model_validate(given)
    assert (parameters.rounds, parameters.trials_per_round, parameters.pruner) == (1, TRIALS, "none")
