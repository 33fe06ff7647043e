"""Nodes of the pipeline `tuning`."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import optuna
import pandas as pd
from matplotlib.figure import Figure

from brain_mri.datasets.checkpoints import CheckpointStore
from brain_mri.datasets.features import FeatureCache
from brain_mri.datasets.shards import ShardSet
from brain_mri.models.checkpoints import training_key
from brain_mri.models.recipe import Recipe
from brain_mri.models.search import Configuration
from brain_mri.models.trial import TrialResult
from brain_mri.pipelines.training.nodes import check_preparation, choose_recipe
from brain_mri.pipelines.training.parameters import TrainingParameters
from brain_mri.pipelines.tuning.bench import Bench
from brain_mri.pipelines.tuning.parameters import TuningParameters
from brain_mri.pipelines.tuning.study import Asked, Study, rounds
from brain_mri.report.tuning import dimension_importance, parallel_coordinates, search_history

log = logging.getLogger(__name__)

_SHOWN = 10  # of the trials, in the report

Trial = dict[str, Any]
"""A row of `tuning_trials`."""

RecipeOf = Callable[[Configuration, int], Recipe]
"""From what a trial changes, and a seed, to the recipe that it trains."""


class NothingFoundError(RuntimeError):
    """No trial of a study was complete."""


def search(  # noqa: PLR0917 - inputs of a node
    train: ShardSet,
    validation: ShardSet,
    store: CheckpointStore,
    feature_cache: FeatureCache,
    split_metadata: Mapping[str, Any],
    tuning: TuningParameters,
    training: TrainingParameters,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, float]]:
    """Try configurations in Spark tasks, and choose the best one.

    Args:
        train: Images to learn from.
        validation: Images that configurations are compared on.
        store: Of what has ended, so that a study goes on where it was broken off.
        feature_cache: Store of what frozen layers compute.
        split_metadata: Its ``source.kind`` decides what "auto" means.
        tuning: What the user decided about the search.
        training: What is not varied.

    Returns:
        A row a trial; the best configuration, with what it reached; how much each dimension decides.

    Raises:
        OtherPreparationError: The sets were not prepared together.
        ValueError: The space varies what a backbone of it has not.
        NothingFoundError: No trial was complete.
        TooFewSlotsError: Spark has no slot.
        WeightsError: The weights of a backbone cannot be had.
    """
    check_preparation(train, validation)
    base = training.model_copy(
        update={
            "config": None, "recipe": tuning.recipe, "epochs": tuning.epochs,
            "augmented_copies": tuning.augmented_copies, "precision": "float32",
        }
    )  # fmt: skip
    kind = split_metadata["source"]["kind"]

    @cache
    def recipe_for(backbone: str) -> Recipe:
        changed = base.model_copy(update={"backbone": backbone})
        return choose_recipe(changed, kind, train.image_size, tuple(train.classes))

    def recipe_of(configuration: Configuration, seed: int) -> Recipe:
        recipe = configuration.applied(recipe_for(configuration.backbone or base.backbone))
        return recipe.model_copy(update={"seed": seed, "stages": recipe.stages[: tuning.stages]})

    space = tuning.dimensions
    varied = space["backbone"].ends if "backbone" in space else (base.backbone,)
    recipes = [recipe_for(backbone) for backbone in varied]
    for recipe in recipes:
        if "fine_tuning_rate" in space and len(recipe.stages) == 1:
            raise ValueError(
                f"tuning.space varies fine_tuning_rate, but {recipe.backbone} is trained in one stage. Leave "
                "out the one or the other."
            )
    key = study_key(tuning, base, [training_key(recipe, train, validation) for recipe in recipes])
    if f"{key}.study" not in store.names():
        store.clear()
        store.save(f"{key}.study", tuning.model_dump_json().encode())
    bench = Bench(train, validation, store, feature_cache, tuning, training)
    for recipe in recipes:
        bench.weights_of(recipe)  # if they cannot be had, now is the time to say so
    study, trials = Study(tuning), list[Trial]()

    log.info(
        "Study %s: %d rounds of %d trials by %s over %s.", key, tuning.rounds, tuning.trials_per_round,
        tuning.sampler, ", ".join(space),
    )  # fmt: skip
    for asked in rounds(tuning, study):
        for one, result in _tried([(one, base.seed) for one in asked], recipe_of, bench, study.report):
            study.tell(one.number, result, getattr(result, tuning.metric))
            trials.append(_row(one, base.seed, result))
    complete = [trial for trial in trials if trial["status"] == "complete"]
    if not complete:
        reasons = sorted({trial["reason"] for trial in trials if trial["reason"]})
        store.clear()  # so that the same command tries again
        raise NothingFoundError(
            f"None of {len(trials)} trials was complete. Reasons: {'; '.join(reasons) or 'given up'}. "
            "Mend that, or vary something else (tuning.space)."
        )
    best = sorted(complete, key=lambda trial: (-trial[tuning.metric], trial["number"]))[: tuning.finalists]
    others = [
        (_asked(trial), seed) for trial in best for seed in range(base.seed + 1, base.seed + tuning.seeds)
    ]
    finals = zip(others, _tried(others, recipe_of, bench, lambda *_: True), strict=True)
    trials += [_row(one, seed, result, final=True) for (one, seed), (_, result) in finals]
    found = {"study": key, "preparation": train.preparation, **_best(best, trials, tuning)}
    return pd.DataFrame(trials), found, study.importances()


def study_key(tuning: TuningParameters, training: TrainingParameters, keys: Sequence[str]) -> str:
    """Fingerprint of all that decides about a study; one of more rounds goes on with it.

    Args:
        tuning: What the user decided about the search.
        training: What the trials are based on.
        keys: Fingerprints of a training with each backbone.
    """
    asked = tuning.model_dump(exclude={"rounds", "finalists", "seeds", "trial_memory_gib"})
    cached = training.model_dump(include={"cache_gib", "cache_dtype"})
    code = hashlib.sha256(inspect.getsource(inspect.getmodule(Study)).encode()).hexdigest()  # type: ignore[arg-type]
    ingredients = [asked, cached, training.seed, list(keys), code, optuna.__version__]
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:16]


def _tried(
    asked: Sequence[tuple[Asked, int]],
    recipe_of: RecipeOf,
    bench: Bench,
    decide: Callable[[int, int, float], bool],
) -> list[tuple[Asked, TrialResult]]:
    """Try configurations, each with a seed; what makes no recipe has failed."""
    recipes: dict[str, Recipe] = {}
    results: dict[str, TrialResult] = {}
    for one, seed in asked:
        try:
            recipes[_name(one, seed)] = recipe_of(one.configuration, seed)
        except ValueError as error:
            log.info("Trial %d: failed, %s", one.number, error)
            results[_name(one, seed)] = TrialResult("failed", reason=str(error))
    numbers = {_name(one, seed): one.number for one, seed in asked}
    results |= bench.run(recipes, lambda name, step, value: decide(numbers[name], step, value))
    return [(one, results[_name(one, seed)]) for one, seed in asked]


def _name(asked: Asked, seed: int) -> str:
    return f"trial {asked.number} seed {seed}"


def _row(asked: Asked, seed: int, result: TrialResult, *, final: bool = False) -> Trial:
    changes = asked.configuration.model_dump(mode="json", exclude_none=True)
    return {
        "number": asked.number,
        "round": asked.round,
        "seed": seed,
        "final": final,
        "configuration": json.dumps(changes, sort_keys=True),
        "epochs": len(result.values),
        **result._asdict(),
        "values": list(result.values),
    }


def _asked(trial: Trial) -> Asked:
    configuration = Configuration.model_validate_json(trial["configuration"])
    return Asked(trial["number"], trial["round"], configuration)


def _best(best: Sequence[Trial], trials: Sequence[Trial], tuning: TuningParameters) -> dict[str, Any]:
    """The finalist that is best in the mean over its seeds, of those with which most were complete."""
    candidates = []
    for trial in best:
        reached = [
            float(each[tuning.metric])
            for each in trials
            if each["number"] == trial["number"] and each["status"] == "complete"
        ]
        candidates.append((len(reached), statistics.mean(reached), -trial["number"], trial, reached))
    _, mean, _, chosen, reached = max(candidates, key=lambda candidate: candidate[:3])  # luck repeats less
    log.info(
        "Best configuration: trial %d, %s %.4f in the mean of %d seeds (%.4f to %.4f): %s.",
        chosen["number"], tuning.metric, mean, len(reached), min(reached), max(reached),
        chosen["configuration"],
    )  # fmt: skip
    return {
        "recipe": tuning.recipe,
        "configuration": json.loads(chosen["configuration"]),
        "trial": chosen["number"],
        "trials": len({trial["number"] for trial in trials}),
        "metric": tuning.metric,
        "mean": mean,
        "values": reached,
    }


def draw_search(
    trials: pd.DataFrame,
    importances: Mapping[str, float],
    split_metadata: Mapping[str, Any],
    tuning: TuningParameters,
) -> tuple[Figure, Figure, Figure]:
    """Draw the history of a study, its choices, and what decides.

    Args:
        trials: From :func:`search`.
        importances: From :func:`search`.
        split_metadata: Says whether the data are synthetic.
        tuning: Names the metric.
    """
    rows = _plain(trials)
    synthetic = bool(split_metadata["source"]["synthetic"])
    return (
        search_history(rows, tuning.metric, synthetic),
        parallel_coordinates(rows, tuning.metric, synthetic),
        dimension_importance(importances, synthetic),
    )


def describe_search(
    trials: pd.DataFrame,
    best_config: Mapping[str, Any],
    history_png: bytes,
    coordinates_png: bytes,
    importance_png: bytes,
) -> dict[str, Any]:
    """What the report shows of a study (`report.page.build_page`)."""
    metric = best_config["metric"]
    counts = trials[~trials["final"]]["status"].value_counts()
    ended = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    ranked = sorted(
        (row for row in _plain(trials) if row["status"] == "complete" and not row["final"]),
        key=lambda row: -row[metric],
    )
    pictures = {
        "What the trials reached.": history_png,
        "Choices and what they reached.": coordinates_png,
        "How much each choice decides.": importance_png,
    }
    return {
        "study": best_config["study"],
        "trial": best_config["trial"],
        "preparation": best_config["preparation"],
        "title": "The search for a configuration",
        "paragraphs": [
            f"{best_config['trials']} trials: {ended}. Trial {best_config['trial']} was chosen: {metric} "
            f"{best_config['mean']:.3f} on validation, in the mean of {len(best_config['values'])} seeds "
            f"({min(best_config['values']):.3f} to {max(best_config['values']):.3f}). Test scans had no part "
            "in it."
        ],
        "tables": [
            {
                "caption": "The best trials",
                "columns": ["trial", metric, "epochs", "seconds", "configuration"],
                "rows": [
                    [
                        str(row["number"]),
                        f"{row[metric]:.3f}",
                        str(row["epochs"]),
                        f"{row['seconds']:.0f}",
                        row["configuration"],
                    ]
                    for row in ranked[:_SHOWN]
                ],
            }
        ],
        "figures": [
            {"caption": caption, "png": base64.b64encode(png).decode()} for caption, png in pictures.items()
        ],
    }


def _plain(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as they were before the table made NaN of None."""
    return [
        {
            str(name): None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row.items()
        }
        for row in trials.to_dict("records")
    ]
