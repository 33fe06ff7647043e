from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from brain_mri.datasets import CheckpointStore, FeatureCache
from brain_mri.inference.classifier import ScanClassifier
from brain_mri.models.shards import ArrayShards
from brain_mri.models.version import TrainedClassifier
from brain_mri.pipelines.training import create_pipeline
from brain_mri.pipelines.training.nodes import (
    OtherPreparationError,
    choose_recipe,
    train_network,
)
from brain_mri.pipelines.training.parameters import TrainingParameters
from brain_mri.pipelines.training.publishing import publish_classifier
from brain_mri.spark.processes import TooLittleMemoryError
from brain_mri.spark.slots import TooFewSlotsError

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
SPLIT_METADATA: dict[str, Any] = {
    "source": {"kind": "phantom", "fingerprint": "abc123"},
    "counts": {"train": {"glioma": 12}},
}
CONFIGURATION = Path(__file__).resolve().parents[3] / "conf" / "base"


def squares(rows: int, seed: int) -> ArrayShards:
    """64×64 noise with a bright square whose corner is the class."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows, dtype=np.int64) % 4
    pixels = random.integers(0, 60, (rows, 64, 64)).astype(np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        top, left = divmod(int(label), 2)
        image[10 + 30 * top : 24 + 30 * top, 10 + 30 * left : 24 + 30 * left] = 200
    return ArrayShards(pixels, labels, CLASSES)


def no_features(folder: Path) -> FeatureCache:
    return FeatureCache(str(folder / "features"))


@pytest.mark.parametrize(
    ("kind", "backbone", "weights"),
    [("phantom", "compact", None), ("folder", "resnet50", "imagenet"), ("table", "resnet50", "imagenet")],
)
def test_auto_depends_on_where_the_data_came_from(kind: str, backbone: str, weights: str | None) -> None:
    recipe = choose_recipe(TrainingParameters(), kind, 224, CLASSES)
    assert (recipe.backbone, recipe.weights) == (backbone, weights)


def test_what_a_user_decides_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    parameters = TrainingParameters(backbone="mobilenetv2", weights=None, seed=3, epochs=1)
    recipe = choose_recipe(parameters, "phantom", 96, CLASSES)
    assert (recipe.backbone, recipe.weights, recipe.seed) == ("mobilenetv2", None, 3)
    assert {stage.epochs for stage in recipe.stages} == {1}
    assert "random weights" in caplog.text


def test_mistyped_parameters_are_refused() -> None:
    with pytest.raises(ValidationError, match="Did you mean 'compact'"):
        TrainingParameters(backbone="compct")
    with pytest.raises(ValidationError, match="Did you mean 'baseline'"):
        TrainingParameters(recipe="basline")
    with pytest.raises(ValidationError, match="epoch"):
        TrainingParameters.model_validate({"epoch": 3})


def test_the_configuration_states_the_defaults() -> None:
    written = yaml.safe_load((CONFIGURATION / "parameters_training.yml").read_text())["training"]
    assert written == TrainingParameters().model_dump()


def test_the_pipeline_never_reads_the_test_split_and_its_outputs_are_in_the_catalog() -> None:
    pipeline = create_pipeline()
    assert pipeline.inputs() == {
        "checkpoints",
        "feature_cache",
        "model_inputs_train@shards",
        "model_inputs_validation@shards",
        "split_metadata",
        "best_config",
        "params:training",
    }
    catalog = yaml.safe_load((CONFIGURATION / "catalog_training.yml").read_text())
    assert pipeline.all_outputs() | {"checkpoints", "feature_cache"} == set(catalog)


def test_sets_that_were_not_prepared_together_are_refused(tmp_path: Path) -> None:
    train = replace(squares(8, seed=1), preparation="one")
    validation = replace(squares(8, seed=2), preparation="another")
    checkpoints = CheckpointStore(str(tmp_path / "checkpoints"))
    with pytest.raises(OtherPreparationError, match="kedro run --pipelines=preprocessing"):
        train_network(
            train, validation, checkpoints, no_features(tmp_path), SPLIT_METADATA, {}, TrainingParameters()
        )


@pytest.mark.spark
@pytest.mark.tensorflow
def test_what_workers_need_is_looked_for_before_anything_is_lost(spark: Any, tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path / "checkpoints"))
    checkpoints.save("state-01-0001.npz", b"of a training that was broken off")

    def train(**needs: Any) -> None:
        parameters = TrainingParameters(distribution="synchronous", num_workers=1, epochs=1, **needs)
        sets = squares(8, seed=1), squares(8, seed=2)
        train_network(*sets, checkpoints, no_features(tmp_path), SPLIT_METADATA, {}, parameters)

    with pytest.raises(TooFewSlotsError, match="A worker of 99 cores has to run"):
        train(worker_cores=99)
    with pytest.raises(TooFewSlotsError, match="local mode hands out no GPUs"):
        train(worker_gpus=1)
    assert checkpoints.names() == ["state-01-0001.npz"]
    with pytest.raises(TooLittleMemoryError, match="1 worker of 1 core and 50000 GiB"):
        train(worker_memory_gib=50_000)


def test_gpus_are_for_workers_and_decide_about_the_precision() -> None:
    with pytest.raises(ValidationError, match="set distribution=synchronous or asynchronous"):
        TrainingParameters(worker_gpus=1)
    parameters = TrainingParameters(backbone="mobilenetv2", weights=None, distribution="synchronous")
    with_gpus = parameters.model_copy(update={"worker_gpus": 1})
    assert choose_recipe(parameters, "folder", 96, CLASSES).precision == "float32"
    assert choose_recipe(with_gpus, "folder", 96, CLASSES).precision == "mixed_bfloat16"


@pytest.mark.tensorflow
def test_training_ends_in_a_version_that_answers_as_the_network(tmp_path: Path) -> None:
    parameters = TrainingParameters(seed=5, epochs=3)
    train, validation = squares(48, seed=1), squares(24, seed=2)
    checkpoints = CheckpointStore(str(tmp_path / "checkpoints"))
    network, training_log = train_network(
        train, validation, checkpoints, no_features(tmp_path), SPLIT_METADATA, {}, parameters
    )
    files, history, metadata = publish_classifier(
        network, training_log, train, validation, SPLIT_METADATA, parameters
    )

    classifier = TrainedClassifier.from_files(files.__getitem__)
    pixels = validation.pixels[..., None]
    np.testing.assert_allclose(
        classifier.network(pixels, training=False), network(pixels, training=False), atol=1e-6
    )
    engine = ScanClassifier(files.__getitem__)
    answers = engine.answer(validation.pixels)
    np.testing.assert_allclose(answers.probabilities, network(pixels, training=False), atol=1e-5)
    assert answers.out_of_distribution.mean() <= 1 / 24
    noise = np.random.default_rng(1).integers(0, 256, validation.pixels.shape).astype(np.uint8)
    assert engine.answer(noise).out_of_distribution.all()
    assert engine.answer(train.pixels).distances.max() < engine.answer(noise).distances.min()
    assert classifier.recipe.backbone == "compact"
    assert classifier.recipe.seed == 5
    assert classifier.calibration.temperature > 0
    assert json.loads(json.dumps(history)) == classifier.history
    assert len(history["stages"][0]["epochs"]) == 3
    assert json.loads(json.dumps(metadata)) == classifier.metadata
    assert metadata["synthetic"] is True
    assert metadata["data"]["fingerprint"] == "abc123"
    assert metadata["parameters"] == network.count_params()
    assert metadata["classes"] == list(CLASSES)
    assert metadata["validation"]["images"] == 24
    assert metadata["onnx_difference"] < 1e-4
    assert "not a medical device" in metadata["notice"]
