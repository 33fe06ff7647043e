"""The node of the pipeline `training` that makes a version of a trained network."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brain_mri.datasets.shards import scan_numbers
from brain_mri.evaluation.calibration import apply_temperature, expected_calibration_error, fit_temperature
from brain_mri.evaluation.selective import abstention_threshold
from brain_mri.inference.classifier import Calibration
from brain_mri.inference.engine import Engine, open_engine
from brain_mri.inference.novelty import LARGEST_REFERENCE, make_reference, novelty_threshold
from brain_mri.models.export import check_difference, export_onnx
from brain_mri.models.predict import Predictions, predict_shards
from brain_mri.models.recipe import Recipe
from brain_mri.models.shards import Shards
from brain_mri.models.version import TrainedClassifier
from brain_mri.pipelines.training.parameters import TrainingParameters

if TYPE_CHECKING:
    from keras import Model
else:
    Model = (
        Any  # Kedro resolves the hints of nodes, and importing Keras would start TensorFlow for every command
    )

log = logging.getLogger(__name__)

IMAGES_COMPARED = 16
NOTICE = "Research software: not a medical device, and its answers are not a diagnosis."
_BATCH = 64


def publish_classifier(  # noqa: PLR0917 - inputs of a node
    network: Model,
    training_log: Mapping[str, Any],
    train: Shards,
    validation: Shards,
    split_metadata: Mapping[str, Any],
    parameters: TrainingParameters,
) -> tuple[dict[str, bytes], dict[str, Any], dict[str, Any]]:
    """Calibrate a trained network on validation and put together a version of the classifier.

    Args:
        network: The trained Keras model.
        training_log: From :func:`brain_mri.pipelines.training.nodes.train_network`.
        train: Images that it was trained on: what is unlike them is out of distribution.
        validation: Images that calibration is fitted on.
        split_metadata: Says where the data came from.
        parameters: What the user decided.

    Returns:
        Files of the version (name → bytes), its training history, its metadata.

    Raises:
        ExportError: The exported graph does not answer as the network does.
    """
    recipe = Recipe.model_validate(training_log["recipe"])
    predictions = predict_shards(network, validation)
    _, _, pixels = next(iter(validation.batches(IMAGES_COMPARED)))
    graph = export_onnx(network, recipe, pixels[..., np.newaxis])
    engine = open_engine(graph.content)
    answers, features = ask(engine, validation)
    difference = check_difference(answers, predictions.probabilities)
    _, known = ask(engine, train, LARGEST_REFERENCE, recipe.seed)
    reference = make_reference(known, recipe.seed)
    calibration = calibrate(predictions, reference.distances(features), parameters)
    history = {name: value for name, value in training_log.items() if name not in {"recipe", "tuning"}}
    metadata = describe_model(
        network=network,
        recipe=recipe,
        history=history,
        predictions=predictions,
        calibration=calibration,
        split_metadata=split_metadata,
    )
    metadata["onnx_difference"] = difference
    metadata["data"]["preparation"] = validation.preparation
    metadata["training_parameters"] = parameters.model_dump(mode="json")
    metadata["tuning"] = training_log["tuning"]
    classifier = TrainedClassifier(
        network,
        graph.content,
        validation.prepare_options,
        calibration,
        reference,
        recipe,
        history,
        metadata,
        np.unique(scan_numbers(np.concatenate([train.scan_ids, validation.scan_ids]))),
    )
    log.info(
        "Classifier: validation accuracy %.3f, temperature %.2f, abstains below %.2f, strange above %.2f, "
        "ONNX within %.1g.", metadata["validation"]["accuracy"],
        calibration.temperature, calibration.abstention_threshold, calibration.out_of_distribution_threshold,
        difference,
    )  # fmt: skip
    return classifier.to_files(), history, metadata


def ask(
    engine: Engine, shards: Shards, limit: int | None = None, seed: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Answers of the engine to all images of a set, or to so many, drawn by the seed.

    Returns:
        Probabilities ``(n, classes)`` and features ``(n, d)``.
    """
    parts: list[list[NDArray[np.float32]]] = []
    rows = 0
    for _, _, pixels in shards.batches(_BATCH, seed):
        if limit is not None and rows >= limit:
            break
        parts.append(engine(pixels[..., np.newaxis].astype(np.float32)))
        rows += len(pixels)
    probabilities, features = (np.concatenate(column) for column in zip(*parts, strict=True))
    return probabilities, features


def calibrate(
    predictions: Predictions, distances: NDArray[np.float64], parameters: TrainingParameters
) -> Calibration:
    """Fit the temperature, and both thresholds, on validation.

    Args:
        predictions: Of validation scans.
        distances: Of the same, from the training scans.
        parameters: What the thresholds should reach.
    """
    temperature = fit_temperature(predictions.probabilities, predictions.labels)
    calibrated = apply_temperature(predictions.probabilities, temperature)
    return Calibration(
        temperature=temperature,
        abstention_threshold=abstention_threshold(
            calibrated, predictions.labels, target_accuracy=parameters.abstention_accuracy
        ),
        out_of_distribution_threshold=novelty_threshold(distances, parameters.out_of_distribution_share),
    )


def describe_model(
    *,
    network: Model,
    recipe: Recipe,
    history: Mapping[str, Any],
    predictions: Predictions,
    calibration: Calibration,
    split_metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """Say what a model is, where it came from and what it is not for: plain values, ready for JSON."""
    source = split_metadata["source"]
    calibrated = apply_temperature(predictions.probabilities, calibration.temperature)
    return {
        "notice": NOTICE,
        "synthetic": source["kind"] == "phantom",
        "backbone": recipe.backbone,
        "weights": recipe.weights,
        "recipe": recipe.name,
        "precision": recipe.precision,
        "parameters": int(network.count_params()),
        "image_size": recipe.image_size,
        "classes": list(recipe.classes),
        "seed": recipe.seed,
        "data": {
            "source_kind": source["kind"],
            "fingerprint": source.get("fingerprint"),
            "counts": split_metadata.get("counts"),
        },
        "validation": {
            "images": len(predictions.labels),
            "accuracy": float((predictions.probabilities.argmax(axis=1) == predictions.labels).mean()),
            "ece": expected_calibration_error(predictions.probabilities, predictions.labels),
            "ece_calibrated": expected_calibration_error(calibrated, predictions.labels),
        },
        "calibration": calibration.model_dump(),
        "training": {name: history[name] for name in ("seconds", "device", "workers")},
        "warnings": list(history["warnings"]),
        "versions": library_versions(),
    }


def library_versions() -> dict[str, str]:
    """Versions of what decides about a model's numbers."""
    names = (
        "brain-mri", "kedro", "pyspark", "tensorflow", "keras", "numpy", "scikit-learn", "pillow",
        "opencv-python-headless", "onnx", "tf2onnx", "onnxruntime",
    )  # fmt: skip
    versions = {"system": platform.platform(), "python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # brain-mri runs from a checkout as well
            versions[name] = "not installed"
    return versions
