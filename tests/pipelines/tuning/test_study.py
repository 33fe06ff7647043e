"""Optuna asked in rounds: the same study whatever ends first, and after a break."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from brain_mri.models.search import Configuration
from brain_mri.models.trial import TrialResult
from brain_mri.pipelines.tuning.parameters import TuningParameters
from brain_mri.pipelines.tuning.study import Asked, Study, rounds

SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "dropout": [0.1, 0.3, 0.5]}
EPOCHS = 4


def parameters(**changes: Any) -> TuningParameters:
    return TuningParameters(**{"space": SPACE, "rounds": 4, "trials_per_round": 4, **changes})


def reached(configuration: Configuration, epoch: int) -> float:
    """What a made-up training reaches: better near a rate of 0.01, and with every epoch."""
    assert configuration.learning_rate
    assert configuration.dropout
    return 1 / (1 + abs(configuration.learning_rate - 0.01) * 50 + configuration.dropout) - 0.2 / epoch


def run(
    asked_for: TuningParameters,
    order: Callable[[list[Any]], None],
    stored: dict[int, TrialResult] | None = None,
) -> tuple[list[Asked], dict[int, TrialResult]]:
    """Run a study of made-up trainings, whose epochs end in some order; stored results are told again."""
    study, results, trials = Study(asked_for), dict(stored or {}), list[Asked]()
    for round_ in rounds(asked_for, study):
        values: dict[int, list[float]] = {one.number: [] for one in round_ if one.number not in results}
        pruned = set[int]()
        events = [one for one in round_ for _ in range(EPOCHS)]
        order(events)
        for one in events:
            if one.number in results or one.number in pruned:
                continue
            mine = values[one.number]
            mine.append(reached(one.configuration, len(mine) + 1))
            if not study.report(one.number, len(mine), mine[-1]):
                pruned.add(one.number)
        for one in round_:
            if one.number in values:
                status = "pruned" if one.number in pruned else "complete"
                last = values[one.number][-1]
                results[one.number] = TrialResult(status, tuple(values[one.number]), last, last, 0.1)  # type: ignore[arg-type]
            study.tell(one.number, results[one.number], results[one.number].macro_f1)
        trials += round_
    return trials, results


def in_turn(events: list[Any]) -> None:
    """Leave them: one trial after the other."""


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_one_seed_gives_one_study_whatever_ends_first(sampler: str) -> None:
    asked_for = parameters(sampler=sampler)
    expected = run(asked_for, in_turn)
    assert run(asked_for, lambda events: events.reverse()) == expected
    assert run(asked_for, random.Random(3).shuffle) == expected
    assert run(asked_for.model_copy(update={"seed": 43}), in_turn)[0] != expected[0]
    assert [one.round for one in expected[0]] == [number // 4 + 1 for number in range(16)]
    assert len({one.configuration for one in expected[0]}) == 16


def test_hopeless_trials_are_given_up_by_what_earlier_rounds_reached() -> None:
    _, results = run(parameters(), in_turn)
    assert {results[number].status for number in (1, 2, 3, 4)} == {"complete"}, "there is no earlier round"
    given_up = [result for result in results.values() if result.status == "pruned"]
    assert given_up
    assert {len(result.values) for result in given_up} == {2}, "not before two epochs"
    assert max(results.values(), key=lambda result: result.values[-1]).status == "complete"
    _, all_of_them = run(parameters(pruner="none"), in_turn)
    assert {result.status for result in all_of_them.values()} == {"complete"}


def test_a_study_that_was_broken_off_is_asked_the_same_afterwards() -> None:
    expected = run(parameters(), in_turn)
    for kept in (3, 4, 9):
        stored = {number: result for number, result in expected[1].items() if number <= kept}
        assert run(parameters(), in_turn, stored) == expected


def test_a_grid_is_gone_through_once_and_no_further() -> None:
    space = {
        "dropout": {"low": 0.1, "high": 0.3, "step": 0.1},
        "batch_size": [8, 16],
        "head_units": [[4], [8, 4]],
    }
    asked_for = parameters(space=space, sampler="grid", trials_per_round=5)
    study, trials = Study(asked_for), list[Asked]()
    for round_ in rounds(asked_for, study):
        for one in round_:
            study.tell(one.number, TrialResult("complete", (0.5,), 0.5, 0.5, 0.1), 0.5)
        trials += round_
    assert [one.round for one in trials] == [1] * 5 + [2] * 5 + [3] * 2
    assert len({one.configuration for one in trials}) == 12
    assert {one.configuration.head_units for one in trials} == {(4,), (8, 4)}
    assert {round(one.configuration.dropout or 0, 6) for one in trials} == {0.1, 0.2, 0.3}


def test_what_has_failed_does_not_end_a_study_and_what_decides_is_found() -> None:
    asked_for = parameters(pruner="none", trials_per_round=8)
    study = Study(asked_for)
    for round_ in rounds(asked_for, study):
        for place, one in enumerate(round_):
            value = reached(one.configuration, EPOCHS)
            result = TrialResult("complete", (value,), value, value, 0.1)
            failed = TrialResult("lost", (), reason="killed")
            study.tell(one.number, failed if place == 3 else result, None if place == 3 else value)
    importances = study.importances()
    assert importances["learning_rate"] > importances["dropout"]
    assert json.loads(json.dumps(importances)) == importances
    assert Study(asked_for).importances() == {}, "nothing is known yet"
