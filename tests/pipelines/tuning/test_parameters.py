from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from brain_mri.pipelines.tuning.parameters import TuningParameters


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"space": {}}, "The search space is empty"),
        ({"space": {"dropuot": [0.1]}}, "Did you mean 'dropout'"),
        ({"space": {"learning_rate": {"low": 1, "high": 0.1}}}, "learning_rate: .*low has to be below high"),
        ({"space": {"unfrozen_layers": [10, 50]}}, "varies unfrozen_layers, which later stages use.*to null"),
        ({"space": {"augmentation": [0, 1]}}, "augmented_copies=0 moves no image"),
        (
            {"space": {"dropout": {"low": 0, "high": 0.5}}, "sampler": "grid"},
            "sampler=grid needs a list of options, or a step, for dropout",
        ),
        ({"sampler": "gird"}, "'tpe', 'random' or 'grid'"),
        ({"rounds": 0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_search_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TuningParameters(**given)


def test_what_later_stages_use_may_be_varied_where_they_are_trained() -> None:
    space = {"unfrozen_layers": [10, 50], "fine_tuning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}
    assert TuningParameters(space=space, stages=None).dimensions.keys() == space.keys()
