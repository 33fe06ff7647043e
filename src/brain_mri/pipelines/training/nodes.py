"""Nodes of the pipeline `training`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brain_mri.datasets.features import FeatureCache
from brain_mri.datasets.shards import ShardSet
from brain_mri.models.apart import train_apart
from brain_mri.models.checkpoints import Checkpoints
from brain_mri.models.estimate import best_precision
from brain_mri.models.loop import train_classifier
from brain_mri.models.recipe import Recipe, make_recipe
from brain_mri.models.search import Configuration
from brain_mri.models.together import train_together
from brain_mri.pipelines.training.caching import cache_features
from brain_mri.pipelines.training.parameters import TrainingParameters
from brain_mri.spark.apart import ApartLauncher
from brain_mri.spark.launchers import SparkLauncher
from brain_mri.spark.processes import Needs
from brain_mri.spark.together import TogetherLauncher

if TYPE_CHECKING:
    from keras import Model
else:
    Model = (
        Any  # Kedro resolves the hints of nodes, and importing Keras would start TensorFlow for every command
    )

log = logging.getLogger(__name__)


class NotTunedError(ValueError):
    """There is no configuration that tuning has found."""

    def __init__(self) -> None:
        super().__init__(
            "training.config=tuned asks for the configuration that tuning has found, and there is none. Run "
            "`kedro run --pipelines=tuning` first, or set training.config=null."
        )


class OtherPreparationError(ValueError):
    """Sets of model inputs do not belong together."""


def choose_recipe(
    parameters: TrainingParameters,
    source_kind: str,
    image_size: int,
    classes: tuple[str, ...],
    best_config: Mapping[str, Any] | None = None,
) -> Recipe:
    """Make the recipe of a run, with every "auto" resolved.

    Args:
        parameters: What the user decided.
        source_kind: "phantom", "folder" or "table".
        image_size: Of the model inputs, in pixels.
        classes: Class keys in the order of the labels.
        best_config: What tuning has found, for ``config="tuned"``; empty or None if nothing.

    Raises:
        NotTunedError: It is to be trained with, and there is none.

    Example:
        >>> choose_recipe(TrainingParameters(), "phantom", 224, ("a", "b")).backbone
        'compact'
    """
    configuration, name = Configuration(), parameters.recipe
    if parameters.config == "tuned":
        if not best_config:
            raise NotTunedError
        configuration = Configuration.model_validate(best_config["configuration"])
        name = best_config["recipe"]  # what it changes is no configuration of another one
    backbone = configuration.backbone or parameters.backbone
    if backbone == "auto":
        backbone = "compact" if source_kind == "phantom" else "resnet50"
    weights = parameters.weights
    if weights == "auto":
        weights = None if backbone == "compact" else "imagenet"
    elif weights is None and backbone != "compact":
        log.warning(
            "%s starts from random weights, as asked: expect little from a few thousand scans.", backbone
        )
    on_gpu = parameters.distribution != "none" and parameters.worker_gpus > 0
    precision = best_precision(backbone, on_gpu) if parameters.precision == "auto" else parameters.precision
    recipe = make_recipe(
        name,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        classes=classes,
        seed=parameters.seed,
        epochs=parameters.epochs,
        batch_size=parameters.global_batch_size,
        augmented_copies=parameters.augmented_copies,
        precision=precision,
    )
    return configuration.applied(recipe)


def train_network(  # noqa: PLR0917 - inputs of a node
    train: ShardSet,
    validation: ShardSet,
    checkpoints: Checkpoints,
    feature_cache: FeatureCache,
    split_metadata: Mapping[str, Any],
    best_config: Mapping[str, Any],
    parameters: TrainingParameters,
) -> tuple[Model, dict[str, Any]]:
    """Build and train the network of a run, in this process or in Spark tasks.

    Args:
        train: Images to learn from.
        validation: Images that decide about learning rate, stopping and the best weights.
        checkpoints: Store of the state of the training after every epoch.
        feature_cache: Store of what frozen layers compute.
        split_metadata: Its ``source.kind`` decides what "auto" means.
        best_config: What tuning has found; empty if nothing.
        parameters: What the user decided.

    Returns:
        The trained Keras model, and the log: ``recipe`` and ``tuning`` beside the ``stages``, ``warnings``,
        ``device``, ``workers`` and ``seconds`` of :class:`brain_mri.models.loop.TrainingHistory`.

    Raises:
        OtherPreparationError: The sets were not prepared together.
        NotTunedError: It is to be trained with what tuning has found, and that is nothing.
        WeightsError: The weights cannot be had or do not fit.
        TrainingDiverged: The loss became NaN or infinite.
        TooFewSlotsError: Spark cannot run all workers at the same time.
        TooLittleMemoryError: A machine has less memory than its workers may take.
        WorkerDiedError: A worker died again and again.
    """
    check_preparation(train, validation)
    kind = split_metadata["source"]["kind"]
    recipe = choose_recipe(parameters, kind, train.image_size, tuple(train.classes), best_config)
    tuned = None
    if parameters.config == "tuned":
        tuned = {name: best_config[name] for name in ("study", "trial", "configuration", "metric", "mean")}
        log.info(
            "Training with what trial %d of study %s changes about the recipe (%s %.3f on validation): %s.",
            tuned["trial"], tuned["study"], tuned["metric"], tuned["mean"],
            json.dumps(tuned["configuration"]),
        )  # fmt: skip
        if best_config["preparation"] != train.preparation:
            log.warning("That study was of other scans, or of scans that were prepared otherwise.")
    launcher: TogetherLauncher | ApartLauncher | None = None
    if parameters.distribution != "none":
        needs = Needs(parameters.worker_cores, parameters.worker_memory_gib, parameters.worker_gpus)
        way = TogetherLauncher if parameters.distribution == "synchronous" else ApartLauncher
        launcher = way(parameters.num_workers, needs)
        launcher.check()
    features = {}
    if parameters.cache_gib:
        limit = int(parameters.cache_gib * 2**30)
        features = cache_features(
            recipe, train, validation, feature_cache, SparkLauncher(), limit, parameters.cache_dtype
        )
    if isinstance(launcher, TogetherLauncher):
        network, history = train_together(recipe, train, validation, checkpoints, launcher, features)
    elif launcher:
        network, history = train_apart(
            recipe, train, validation, checkpoints, launcher, features, parameters.push_every
        )
    else:
        network, history = train_classifier(recipe, train, validation, checkpoints, features)
    return network, {"recipe": recipe.model_dump(mode="json"), "tuning": tuned, **history}


def check_preparation(train: ShardSet, validation: ShardSet) -> None:
    """See that two sets were prepared together.

    Raises:
        OtherPreparationError: They were not.
    """
    if train.preparation != validation.preparation:
        raise OtherPreparationError(
            "The training and the validation set were published by different runs of preprocessing, so they "
            "may share scans: one was broken off in between. Run `kedro run --pipelines=preprocessing` again."
        )
