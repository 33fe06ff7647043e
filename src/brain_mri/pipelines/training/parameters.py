"""Parameters of the pipeline `training`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from brain_mri.datasets.shards import STRANDS
from brain_mri.models.recipe import BACKBONES, RECIPES, known_name

DISTRIBUTIONS = ("none", "synchronous")


class TrainingParameters(BaseModel):
    """What a user decides about training; the rest is the recipe's.

    Attributes:
        backbone: "resnet50", "mobilenetv2", "compact", or "auto": compact for phantom data, else resnet50.
        weights: "imagenet" (downloaded by Keras), the path of a weights file, None for a random start, or
            "auto": imagenet for the big backbones, None for compact.
        recipe: "baseline".
        seed: From which initial weights, order, augmentation and dropout are drawn.
        epochs: A limit on the epochs of each stage, for a quick try; None takes the recipe's own.
        distribution: "none" trains in this process, "synchronous" in Spark tasks that take every step
            together.
        num_workers: How many tasks, where training is distributed.
        worker_cores: Processor cores of each.
        global_batch_size: Images a step, of all workers together; None takes the recipe's own.
        abstention_accuracy: Accuracy on validation that answers above the abstention threshold should reach.
        out_of_distribution_share: Share of validation scans that the out-of-distribution threshold refuses.

    Example:
        >>> TrainingParameters().backbone
        'auto'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "auto"
    weights: str | None = "auto"
    recipe: str = "baseline"
    seed: Annotated[int, Field(ge=0)] = 42
    epochs: Annotated[int, Field(ge=1)] | None = None
    distribution: str = "none"
    num_workers: Annotated[int, Field(ge=1, le=STRANDS)] = 2
    worker_cores: Annotated[int, Field(ge=1)] = 1
    global_batch_size: Annotated[int, Field(ge=1)] | None = None
    abstention_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.99
    out_of_distribution_share: Annotated[float, Field(ge=0, lt=1)] = 0.01

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, value: str) -> str:
        return known_name(value, ("auto", *BACKBONES), "backbone")

    @field_validator("distribution")
    @classmethod
    def _known_distribution(cls, value: str) -> str:
        return known_name(value, DISTRIBUTIONS, "distribution")

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, value: str) -> str:
        return known_name(value, RECIPES, "recipe")
