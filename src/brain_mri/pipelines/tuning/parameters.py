"""Parameters of the pipeline `tuning`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from brain_mri.models.recipe import known_recipe
from brain_mri.models.search import COUNTS, Between, Space, read_space
from brain_mri.models.trial import Metric

Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "none"]

DEFAULT_SPACE: dict[str, Any] = {
    "learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
    "dropout": {"low": 0.1, "high": 0.6, "step": 0.1},
    "head_units": [[256, 128], [128], [512]],
    "batch_size": [16, 32, 64],
}

_OF_LATER_STAGES = {"fine_tuning_rate", "unfrozen_layers"}


class TuningParameters(BaseModel):
    """What a user decides about a search; what it does not vary comes from `training`.

    Attributes:
        recipe: That trials are based on, as in `training`: "baseline", "best" or "head_first". Only a recipe
            that trains the head by itself lets trials share what frozen layers compute.
        space: What is varied: by name a list of options, or ``low``, ``high``, and ``log`` or ``step``; names
            are those of :class:`brain_mri.models.search.Configuration`. None for ``DEFAULT_SPACE``: it is no
            value of the files, which Kedro would merge with a smaller space.
        sampler: "tpe", "random" or "grid": Optuna's own.
        rounds: Trials are asked for in rounds; a round ends when all of its trials have.
        trials_per_round: How many.
        metric: That is to be highest on validation scans: "macro_f1" or "accuracy".
        pruner: "median" gives up a trial that is behind the median of earlier rounds; "none".
        warm_up_epochs: Before which no trial is given up.
        stages: Stages of the recipe that a trial trains: 1 for the first one, which of a pretrained backbone
            trains the head; None for all.
        epochs: A limit on the epochs of each stage of a trial; None takes the recipe's own.
        augmented_copies: As in `training`; where it is a number, trials share what frozen layers compute.
        finalists: So many of the best are trained again with other seeds, and the best of them in the mean is
            chosen.
        seeds: Trainings of each finalist, the first one included.
        trial_cores: Processor cores of each trial.
        trial_memory_gib: GiB of memory that each may take; None for no limit.
        seed: From which the samplers draw.

    Example:
        >>> TuningParameters(space={"dropout": [0.2, 0.5]}).rounds
        4
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Annotated[str, AfterValidator(known_recipe)] = "baseline"
    space: dict[str, Any] | None = None
    sampler: Sampler = "tpe"
    rounds: Annotated[int, Field(ge=1)] = 4
    trials_per_round: Annotated[int, Field(ge=1)] = 5
    metric: Metric = "macro_f1"
    pruner: Pruner = "median"
    warm_up_epochs: Annotated[int, Field(ge=0)] = 2
    stages: Literal[1] | None = 1
    epochs: Annotated[int, Field(ge=1)] | None = None
    augmented_copies: Annotated[int, Field(ge=0)] | None = 0
    finalists: Annotated[int, Field(ge=1)] = 3
    seeds: Annotated[int, Field(ge=1)] = 3
    trial_cores: Annotated[int, Field(ge=1)] = 1
    trial_memory_gib: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 42

    @model_validator(mode="after")
    def _varied_for_something(self) -> Self:
        dimensions = self.dimensions
        later = sorted(_OF_LATER_STAGES & set(dimensions))
        if self.stages == 1 and later:
            raise ValueError(
                f"space varies {' and '.join(later)}, which later stages use, but trials train the first "
                "stage only. Set stages to null, so that they train all, or leave it out of the space."
            )
        if self.augmented_copies == 0 and "augmentation" in dimensions:
            raise ValueError(
                "space varies the augmentation, but augmented_copies=0 moves no image. Set augmented_copies "
                "to a number of copies, or to null for new ones in every epoch."
            )
        if self.sampler == "grid":
            endless = [
                name
                for name, dimension in dimensions.items()
                if isinstance(dimension, Between) and dimension.step is None and name not in COUNTS
            ]
            if endless:
                raise ValueError(
                    f"sampler=grid needs a list of options, or a step, for {', '.join(endless)}: between low "
                    "and high there is no end of numbers. Give a step, or take sampler=tpe or random."
                )
        return self

    @property
    def dimensions(self) -> Space:
        """The space, read."""
        return read_space(DEFAULT_SPACE if self.space is None else self.space)
