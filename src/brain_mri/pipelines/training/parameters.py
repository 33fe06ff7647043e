"""Parameters of the pipeline `training`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from brain_mri.datasets.shards import STRANDS
from brain_mri.models.features import FeatureDtype
from brain_mri.models.recipe import BACKBONES, Precision, known_name, known_recipe

DISTRIBUTIONS = ("none", "synchronous", "asynchronous")


class TrainingParameters(BaseModel):
    """What a user decides about training; the rest is the recipe's.

    Attributes:
        backbone: "resnet50", "mobilenetv2", "compact", or "auto": compact for phantom data, else resnet50.
        weights: "imagenet" (downloaded by Keras), the path of a weights file, None for a random start, or
            "auto": imagenet for the big backbones, None for compact.
        recipe: "best", "baseline" or "head_first": see :func:`brain_mri.models.recipe.make_recipe`.
        config: "tuned" trains with the best configuration that the pipeline `tuning` has found.
        seed: From which initial weights, order, augmentation and dropout are drawn.
        epochs: A limit on the epochs of each stage, for a quick try; None takes the recipe's own.
        augmented_copies: So many draws of augmentation an image take turns, and can be cached; 0 moves no
            image, None draws anew in every epoch.
        cache_gib: What frozen layers compute may take so many GiB of the storage; 0 computes it in every
            epoch.
        cache_dtype: In which it is kept: "float16", or "float32" for twice the space.
        precision: Of the arithmetic while training: "float32", "mixed_bfloat16", or "auto": the latter where
            the device has it and the network gains by it.
        distribution: "none" trains in this process, "synchronous" in Spark tasks that take every step
            together, "asynchronous" in Spark tasks that share what they learn through a parameter server.
        num_workers: How many tasks, where training is distributed.
        worker_cores: Processor cores of each.
        worker_memory_gib: GiB of memory that each may take; None for no limit.
        worker_gpus: 1 for a GPU a worker, from Spark's resource scheduling.
        global_batch_size: Images a step, of all workers together; None takes the recipe's own.
        push_every: Steps that an asynchronous worker takes before it shares what it has learned; None for an
            epoch.
        abstention_accuracy: Accuracy on validation that answers above the abstention threshold should reach.
        out_of_distribution_share: Share of validation scans that the out-of-distribution threshold refuses.

    Example:
        >>> TrainingParameters().backbone
        'auto'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "auto"
    weights: str | None = "auto"
    recipe: Annotated[str, AfterValidator(known_recipe)] = "best"
    config: Literal["tuned"] | None = None
    seed: Annotated[int, Field(ge=0)] = 42
    epochs: Annotated[int, Field(ge=1)] | None = None
    augmented_copies: Annotated[int, Field(ge=0)] | None = None
    cache_gib: Annotated[float, Field(ge=0)] = 10
    cache_dtype: FeatureDtype = "float16"
    precision: Literal["auto"] | Precision = "auto"
    distribution: str = "none"
    num_workers: Annotated[int, Field(ge=1, le=STRANDS)] = 2
    worker_cores: Annotated[int, Field(ge=1)] = 1
    worker_memory_gib: Annotated[float, Field(gt=0)] | None = None
    worker_gpus: Literal[0, 1] = 0
    global_batch_size: Annotated[int, Field(ge=1)] | None = None
    push_every: Annotated[int, Field(ge=1)] | None = 1
    abstention_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.99
    out_of_distribution_share: Annotated[float, Field(ge=0, lt=1)] = 0.01

    @model_validator(mode="after")
    def _gpus_of_workers(self) -> Self:
        if self.worker_gpus and self.distribution == "none":
            raise ValueError(
                "worker_gpus is for training in Spark tasks: set distribution=synchronous or asynchronous. "
                "In one process TensorFlow uses the GPU that it finds."
            )
        return self

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, value: str) -> str:
        return known_name(value, ("auto", *BACKBONES), "backbone")

    @field_validator("distribution")
    @classmethod
    def _known_distribution(cls, value: str) -> str:
        return known_name(value, DISTRIBUTIONS, "distribution")
