from __future__ import annotations

import numpy as np
import pytest

from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.inference.classifier import Calibration
from brain_mri.inference.novelty import make_reference
from brain_mri.models.network import build_network
from brain_mri.models.recipe import Recipe
from brain_mri.models.shards import ArrayShards
from brain_mri.models.version import TrainedClassifier


@pytest.mark.tensorflow
def test_a_version_comes_back_from_its_files(recipe: Recipe, validation: ArrayShards) -> None:
    calibration = Calibration(temperature=1.5, abstention_threshold=0.7, out_of_distribution_threshold=0.4)
    classifier = TrainedClassifier(
        network=build_network(recipe),
        graph=b"graph",
        preparation=PrepareOptions(64, crop_to_head=True),
        calibration=calibration,
        reference=make_reference(np.eye(3), seed=1),
        recipe=recipe,
        history={"stages": []},
        metadata={"notice": "für Menschen"},
        seen=np.array([3, 5]),
    )
    files = classifier.to_files()
    assert sorted(files) == [
        "calibration.json", "classifier.keras", "graph.onnx", "model_metadata.json", "preparation.json",
        "recipe.json", "reference_features.npy", "seen_scans.npy", "training_history.json",
    ]  # fmt: skip
    back = TrainedClassifier.from_files(files.__getitem__)
    assert (back.calibration, back.recipe, back.graph) == (calibration, recipe, b"graph")
    np.testing.assert_array_equal(back.reference.features, np.eye(3))
    assert back.seen.tolist() == [3, 5]
    assert back.preparation == classifier.preparation
    assert (back.history, back.metadata) == (classifier.history, classifier.metadata)
    pixels = validation.pixels[..., None]
    np.testing.assert_array_equal(
        back.network(pixels, training=False), classifier.network(pixels, training=False)
    )
