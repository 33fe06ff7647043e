"""The node of the pipeline `reporting` that says what other seeds, and more than one forward pass, give."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.metrics import compute_metrics
from brain_mri.inference.classifier import RECIPE_FILE, ScanClassifier
from brain_mri.models.shards import Shards
from brain_mri.models.version import METADATA_FILE
from brain_mri.pipelines.reporting.parameters import ReportingParameters

log = logging.getLogger(__name__)


def compare_repetitions(
    classifier: FolderVersion,
    versions: Iterable[FolderVersion],
    model_inputs_test: Shards,
    parameters: ReportingParameters,
) -> dict[str, Any]:
    """Measure the versions that differ from this one by their seed alone, and what averaging would give.

    Args:
        classifier: The version of the report.
        versions: All that there are. Those of the same recipe and the same model inputs count; of several
            with one seed, the latest.
        model_inputs_test: The test split.
        parameters: Names batch size and bins.

    Returns:
        Tables of metrics by name: ``single`` of this version, ``mirrored`` of its answers to a scan and to
        its mirror image, averaged; ``seeds``, of each repetition with its ``seed`` and ``version``; where
        there are several, their ``mean``, ``spread`` (sample standard deviation) and the ``ensemble`` of
        their averaged answers, else None.
    """
    repetitions = find_repetitions(classifier, versions)
    labels = np.concatenate([labels for _, labels, _ in model_inputs_test.batches(parameters.batch_size)])
    classes = model_inputs_test.classes

    def measure(calibrated: NDArray[np.float64]) -> dict[str, float | None]:
        return compute_metrics(labels, calibrated, classes, parameters.calibration_bins)

    answers = {
        version.version: _answers(version, model_inputs_test, parameters.batch_size)
        for version in repetitions.values()
    }
    own = answers[classifier.version]
    mirrored = _answers(classifier, model_inputs_test, parameters.batch_size, mirrored=True)
    seeds: list[dict[str, Any]] = [
        {"seed": seed, "version": version.version, **measure(answers[version.version])}
        for seed, version in sorted(repetitions.items())
    ]
    result: dict[str, Any] = {
        "single": measure(own),
        "mirrored": measure((own + mirrored) / 2),
        "seeds": seeds,
        "mean": None,
        "spread": None,
        "ensemble": None,
    }
    if len(seeds) > 1:
        table = {
            name: [row[name] for row in seeds]
            for name, value in result["single"].items()
            if value is not None
        }
        result["mean"] = {name: float(np.mean(values)) for name, values in table.items()}
        result["spread"] = {name: float(np.std(values, ddof=1)) for name, values in table.items()}
        result["ensemble"] = measure(np.mean(list(answers.values()), axis=0))
        log.info(
            "%d seeds: accuracy %.4f in the mean, deviation %.4f.", len(seeds), result["mean"]["accuracy"],
            result["spread"]["accuracy"],
        )  # fmt: skip
    return result


def find_repetitions(
    classifier: FolderVersion, versions: Iterable[FolderVersion]
) -> dict[int, FolderVersion]:
    """Versions that differ from one by their seed alone, by their seed, that one included."""
    wanted, found = _identity(classifier), dict[int, FolderVersion]()
    for version in sorted(versions, key=lambda each: each.version):
        if {RECIPE_FILE, METADATA_FILE} <= set(version.names()) and _identity(version) == wanted:
            found[_seed(version)] = version
    return {**found, _seed(classifier): classifier}


def _identity(version: FolderVersion) -> tuple[Mapping[str, Any], str]:
    """Recipe without its seed, and what model inputs it was trained with."""
    recipe = json.loads(version.read(RECIPE_FILE))
    data = json.loads(version.read(METADATA_FILE)).get("data", {})
    return {name: value for name, value in recipe.items() if name != "seed"}, data.get("preparation", "")


def _seed(version: FolderVersion) -> int:
    return int(json.loads(version.read(RECIPE_FILE))["seed"])


def _answers(
    version: FolderVersion, shards: Shards, batch_size: int, *, mirrored: bool = False
) -> NDArray[np.float64]:
    """Calibrated answers of a version to all scans, or to their mirror images."""
    engine = ScanClassifier(version.read)
    step = -1 if mirrored else 1
    batches = shards.batches(batch_size)
    return np.concatenate([engine.answer(pixels[:, :, ::step]).calibrated for _, _, pixels in batches])
