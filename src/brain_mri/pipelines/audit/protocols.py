"""Nodes of the pipeline `audit` that train again: on shuffled labels, and by the official protocol."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_mri.cohort.manifest import SHARED_WITH_TEST
from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.bootstrap import bootstrap_intervals
from brain_mri.evaluation.metrics import compute_metrics
from brain_mri.inference.classifier import RECIPE_FILE
from brain_mri.models.checkpoints import NoCheckpoints
from brain_mri.models.loop import train_classifier
from brain_mri.models.predict import predict_shards
from brain_mri.models.recipe import Recipe
from brain_mri.models.shards import ArrayShards, Shards
from brain_mri.pipelines.audit.parameters import AuditParameters
from brain_mri.pipelines.reporting.predicting import refuse_other_version

log = logging.getLogger(__name__)

_VALIDATION_SHARE = 0.14
_REPLICATES = 1000


def train_on_shuffled_labels(  # noqa: PLR0917 - inputs of a node
    classifier: FolderVersion,
    manifest: pd.DataFrame,
    model_inputs_train: Shards,
    model_inputs_validation: Shards,
    model_inputs_test: Shards,
    parameters: AuditParameters,
) -> dict[str, Any]:
    """Train on labels that say nothing: what is then right on the test split is chance, or a leak.

    The labels of the training and of the validation scans are shuffled, those of the test scans are true.

    Returns:
        ``accuracy``, ``balanced_accuracy`` and ``interval`` of the latter (95 %, over groups) on the test
        split; ``chance`` (1 / classes); ``fell_to_chance``, whether the interval reaches down to it.
    """
    generator = np.random.default_rng(parameters.seed)
    train, validation = (
        _shuffled(ArrayShards.drawn(shards, parameters.scans, parameters.seed), generator)
        for shards in (model_inputs_train, model_inputs_validation)
    )
    test = ArrayShards.drawn(model_inputs_test, parameters.scans, parameters.seed)
    log.info("Training on shuffled labels, which has to fall to chance.")
    probabilities = _trained_answers(_recipe(classifier, parameters), train, validation, test)
    metrics = compute_metrics(test.labels, probabilities, test.classes)
    accepted = manifest[manifest["status"] == "accepted"].set_index("scan_id")
    groups = accepted["duplicate_group"].reindex(test.scan_ids).to_numpy()
    intervals = bootstrap_intervals(
        test.labels, probabilities, groups, test.classes, parameters.seed, _REPLICATES
    )
    balanced = float(metrics["balanced_accuracy"] or 0)
    interval = intervals["balanced_accuracy"] or (balanced, balanced)  # the same one in all draws
    chance = 1 / len(test.classes)
    log.info(
        "Shuffled labels: balanced accuracy %.3f (%.3f to %.3f), chance is %.3f.",
        metrics["balanced_accuracy"], *interval, chance,
    )  # fmt: skip
    return {
        "accuracy": metrics["accuracy"],
        "balanced_accuracy": metrics["balanced_accuracy"],
        "interval": list(interval),
        "chance": chance,
        "fell_to_chance": interval[0] <= chance,
    }


def compare_protocols(  # noqa: PLR0917 - inputs of a node
    classifier: FolderVersion,
    source_files: pd.DataFrame,
    manifest: pd.DataFrame,
    predictions: pd.DataFrame,
    model_inputs_train: Shards,
    model_inputs_validation: Shards,
    model_inputs_test: Shards,
    parameters: AuditParameters,
) -> list[dict[str, Any]]:
    """Train by the source's official protocol, and measure what its leaks are worth.

    One network is trained on the official training half, by the version's recipe. It is measured on the
    official test half as it is, and on what of it has no copy and no near copy in the training half. The
    version itself, trained and tested on groups that never cross, stands beside them.

    Returns:
        Empty where the source has no official test half, or the run kept its scans apart already. Else a row
        a protocol: ``protocol``, ``trained`` and ``tested`` (scans), ``leaked`` (share of the tested scans
        with a twin in training), ``accuracy`` and its ``interval`` (95 %, over groups), ``macro_f1``,
        ``epochs`` of each stage, at most.
    """
    if (manifest["reason"] == SHARED_WITH_TEST).any():
        log.warning(
            "The official protocol cannot be measured: this run was split by ingestion.test_split=official, "
            "which took the training scans with a twin in the test half out. Run the audit on a run that was "
            "split by ingestion.test_split=grouped."
        )
        return []
    refuse_other_version(classifier, predictions)
    rows = source_files[["path", "official_split"]].merge(
        manifest[["path", "scan_id", "label", "duplicate_group", "status"]], on="path", validate="one_to_one"
    )
    sets = [model_inputs_train, model_inputs_validation, model_inputs_test]
    every = _joined([ArrayShards.drawn(shards, parameters.scans, parameters.seed) for shards in sets])
    place = {scan_id: number for number, scan_id in enumerate(every.scan_ids)}
    rows = rows[rows["status"].isin(["accepted", "duplicate"]) & rows["scan_id"].isin(place)]
    official = rows["official_split"] == "test"
    if not official.any() or official.all():
        log.info("The source has no official test half: there is nothing to compare with.")
        return []
    half, tested = rows[~official].drop_duplicates("scan_id"), rows[official]
    in_validation = (
        half["duplicate_group"].map(lambda group: _drawn(group, parameters.seed)) < _VALIDATION_SHARE
    )
    train, validation, test = (
        every.chosen([place[scan_id] for scan_id in part["scan_id"]])
        for part in (half[~in_validation], half[in_validation], tested)
    )
    log.info("Training on the official training half: %d scans.", train.rows)
    recipe, whole = _recipe(classifier, parameters), _recipe(classifier, AuditParameters())
    probabilities = _trained_answers(recipe, train, validation, test)
    leaked = tested["duplicate_group"].isin(set(half["duplicate_group"])).to_numpy()
    groups = tested["duplicate_group"].to_numpy()
    clean = ~leaked
    of_half = {"trained": train.rows, "leaked": float(leaked.mean())}
    result = [
        {"protocol": "official", **of_half}
        | measured(test.labels, probabilities, groups, every.classes, parameters.seed)
    ]
    if clean.any():
        result.append(
            {"protocol": "official, leaks removed", **of_half, "leaked": 0.0}
            | measured(
                test.labels[clean], probabilities[clean], groups[clean], every.classes, parameters.seed
            )
        )
    calibrated = predictions[[f"calibrated_{name}" for name in every.classes]].to_numpy()
    own = predictions["label"].to_numpy(), calibrated, predictions["duplicate_group"].to_numpy()
    result.append(
        {
            "protocol": "groups that never cross: this version",
            "trained": model_inputs_train.rows,
            "leaked": 0.0,
        }
        | measured(*own, every.classes, parameters.seed)
    )
    for row, trained_by in zip(result, [*[recipe] * (len(result) - 1), whole], strict=True):
        row["epochs"] = [stage.epochs for stage in trained_by.stages]
        log.info("Protocol %s: accuracy %.4f on %d scans.", row["protocol"], row["accuracy"], row["tested"])
    return result


def measured(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    groups: NDArray[Any],
    classes: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """How many scans were ``tested``, ``accuracy``, its ``interval`` (95 %, over groups), ``macro_f1``."""
    metrics = compute_metrics(labels, probabilities, classes)
    intervals = bootstrap_intervals(labels, probabilities, groups, classes, seed, _REPLICATES)
    return {
        "tested": len(labels),
        "accuracy": metrics["accuracy"],
        "interval": list(intervals["accuracy"] or ()),
        "macro_f1": metrics["macro_f1"],
    }


def _recipe(classifier: FolderVersion, parameters: AuditParameters) -> Recipe:
    """That of the version, with no more epochs than an audit may take."""
    recipe = Recipe.model_validate(json.loads(classifier.read(RECIPE_FILE)))
    if parameters.epochs is None:
        return recipe
    stages = tuple(
        stage.model_copy(update={"epochs": min(stage.epochs, parameters.epochs)}) for stage in recipe.stages
    )
    return recipe.model_copy(update={"stages": stages})


def _trained_answers(recipe: Recipe, train: Shards, validation: Shards, test: Shards) -> NDArray[np.float32]:
    """Probabilities of the test scans, by a network that was trained anew."""
    network, _ = train_classifier(recipe, train, validation, NoCheckpoints())
    return predict_shards(network, test).probabilities


def _joined(sets: Sequence[ArrayShards]) -> ArrayShards:
    first = sets[0]
    return ArrayShards(
        np.concatenate([each.pixels for each in sets]),
        np.concatenate([each.labels for each in sets]),
        first.classes,
        first.preparation,
        np.concatenate([each.scan_ids for each in sets]),
    )


def _shuffled(shards: ArrayShards, generator: np.random.Generator) -> ArrayShards:
    labels = generator.permutation(shards.labels)
    return replace(shards, labels=labels)


def _drawn(group: Any, seed: int) -> float:
    """A number in [0, 1) for a group, the same wherever it stands."""
    digest = hashlib.sha256(f"{seed} {group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
