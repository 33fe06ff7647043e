"""A study: Optuna asks in rounds, is told in the order of the trials, and prunes by earlier rounds alone.

So the same seed gives the same study, in whatever order trials end, and a study that was broken off is the
same when it goes on: what was stored of a trial is told again instead of running it.
"""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from brain_mri.models.search import COUNTS, Between, Configuration, Space, whole
from brain_mri.models.trial import TrialResult
from brain_mri.pipelines.tuning.parameters import TuningParameters


class Asked(NamedTuple):
    """A trial that a round wants.

    Attributes:
        number: Of the trial, from 1.
        round: From 1.
        configuration: What it changes about the recipe.
    """

    number: int
    round: int
    configuration: Configuration


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space in Optuna's words; options are JSON, since Optuna takes no lists.

    Example:
        >>> distributions(read_space({"dropout": [0.2, 0.5]}))
        {'dropout': CategoricalDistribution(choices=('0.2', '0.5'))}
    """
    found: dict[str, BaseDistribution] = {}
    for name, dimension in space.items():
        if not isinstance(dimension, Between):
            found[name] = CategoricalDistribution([json.dumps(option) for option in dimension.options])
        elif name in COUNTS:
            step = int(dimension.step or 1)
            found[name] = IntDistribution(int(dimension.low), int(dimension.high), dimension.log, step)
        else:
            found[name] = FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)
    return found


def configuration_of(params: Mapping[str, Any]) -> Configuration:
    """What Optuna chose, as a configuration."""
    values = {
        name: whole(name, json.loads(value) if isinstance(value, str) else value)
        for name, value in params.items()
    }
    return Configuration.model_validate(values)


class Study:
    """Optuna's study, asked and told as this project wants it."""

    def __init__(self, parameters: TuningParameters) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._parameters = parameters
        self._distributions = distributions(parameters.dimensions)
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if parameters.pruner == "median":
            pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=parameters.warm_up_epochs)
        self._study = optuna.create_study(direction="maximize", pruner=pruner)
        self._trials: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}  # epochs, by trial
        self._lock = threading.Lock()

    def ask(self, number: int) -> list[Asked]:
        """The trials of a round; fewer, or none, where a grid is at its end."""
        parameters = self._parameters
        self._study.sampler = self._sampler(number)
        asked = []
        places = parameters.trials_per_round
        if parameters.sampler == "grid":
            size = math.prod(map(len, grid(self._distributions).values()))
            places = min(places, size - len(self._trials))
        for place in range(places):
            trial = self._study.ask(self._distributions)
            count = (number - 1) * parameters.trials_per_round + place + 1
            self._trials[count] = trial
            asked.append(Asked(count, number, configuration_of(trial.params)))
        return asked

    def report(self, number: int, step: int, value: float) -> bool:
        """Take down what a trial has reached, and say whether it should go on."""
        with self._lock:
            trial = self._trials[number]
            trial.report(value, step)
            self._reported[number] = step
            return not trial.should_prune()

    def tell(self, number: int, result: TrialResult, value: float | None) -> None:
        """Take down how a trial has ended; to be called in the order of the trials."""
        trial = self._trials[number]
        known = self._reported.get(number, 0)  # of a stored trial nothing was heard
        for step, reached in enumerate(result.values[known:], start=known + 1):
            trial.report(reached, step)
        state = optuna.trial.TrialState.COMPLETE
        if result.status == "pruned":
            state = optuna.trial.TrialState.PRUNED
        elif result.status != "complete":
            state = optuna.trial.TrialState.FAIL
        grid_ends = [RuntimeError] if self._parameters.sampler == "grid" else []
        with suppress(*grid_ends):  # it would stop `optimize`, which does not run
            self._study.tell(trial, value if state == optuna.trial.TrialState.COMPLETE else None, state)

    def importances(self) -> dict[str, float]:
        """How much each dimension decides about the metric; empty where too few trials are complete."""
        with warnings.catch_warnings(), suppress(ValueError, RuntimeError, UserWarning):
            warnings.simplefilter("error", UserWarning)  # "will be equal": nothing is known
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            return dict(optuna.importance.get_param_importances(self._study, evaluator=evaluator))
        return {}

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence((self._parameters.seed, number)).generate_state(1)[0])
        if self._parameters.sampler == "random":
            return optuna.samplers.RandomSampler(seed)
        if self._parameters.sampler == "grid":
            return optuna.samplers.GridSampler(grid(self._distributions), self._parameters.seed)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def grid(found: Mapping[str, BaseDistribution]) -> dict[str, Sequence[Any]]:
    """All values of every dimension."""
    values: dict[str, Sequence[Any]] = {}
    for name, distribution in found.items():
        if isinstance(distribution, CategoricalDistribution):
            values[name] = distribution.choices
        elif isinstance(distribution, IntDistribution):
            values[name] = range(distribution.low, distribution.high + 1, distribution.step)
        else:
            assert isinstance(distribution, FloatDistribution)
            assert distribution.step, "the parameters are checked"
            steps = round((distribution.high - distribution.low) / distribution.step)
            values[name] = [
                round(distribution.low + place * distribution.step, 12) for place in range(steps + 1)
            ]
    return values


def rounds(parameters: TuningParameters, study: Study) -> Iterator[list[Asked]]:
    """All rounds of a study; each is asked for when the one before was told."""
    for number in range(1, parameters.rounds + 1):
        asked = study.ask(number)
        if not asked:
            return
        yield asked
