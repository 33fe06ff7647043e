"""What a search varies about a recipe: the space that it searches, and what one configuration changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from brain_mri.models.recipe import HeadBlock, Optimizer, Recipe, Share, known_name

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Configuration(_Frozen):
    """What one configuration changes about a recipe; what is None stays as it is.

    Attributes:
        backbone: Which network.
        learning_rate: Of the first stage.
        fine_tuning_rate: Learning rate of the stages behind it.
        batch_size: Images a step, of all stages.
        dropout: Share of the outputs of every dense layer of the head that are dropped, and of the pooled
            features where the recipe drops some of those.
        head_units: Width of each dense layer of the head.
        unfrozen_layers: Of the backbone, in the last stage: a number of layers, or "all".
        augmentation: Rotation, zoom, shift and contrast are multiplied with it.
        label_smoothing: Share of the truth that is spread over all classes.
        optimizer: Which one.

    Example:
        >>> Configuration(learning_rate=3e-4, head_units=(128,)).model_dump(exclude_none=True)
        {'learning_rate': 0.0003, 'head_units': (128,)}
    """

    backbone: Literal["resnet50", "mobilenetv2", "compact"] | None = None
    learning_rate: Positive | None = None
    fine_tuning_rate: Positive | None = None
    batch_size: Count | None = None
    dropout: Share | None = None
    head_units: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    unfrozen_layers: Annotated[int, Field(ge=0)] | Literal["all"] | None = None
    augmentation: Annotated[float, Field(ge=0, le=5)] | None = None
    label_smoothing: Share | None = None
    optimizer: Optimizer | None = None

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with what this configuration changes; the backbone has to be its own already.

        Raises:
            ValueError: It asks for another backbone, or for a rate of stages that the recipe has not.
        """
        if self.backbone not in {None, recipe.backbone}:
            raise ValueError(f"The recipe is for {recipe.backbone}, the configuration for {self.backbone}.")
        if self.fine_tuning_rate and len(recipe.stages) == 1:
            raise ValueError(f"{recipe.backbone} is trained in one stage: there is no fine_tuning_rate.")
        stages = []
        for number, stage in enumerate(recipe.stages):
            changes: dict[str, Any] = {
                "learning_rate": self.fine_tuning_rate if number else self.learning_rate
            }
            changes["batch_size"] = self.batch_size
            if number == len(recipe.stages) - 1:
                changes["unfrozen_layers"] = self.unfrozen_layers
            stages.append(stage.model_copy(update=_given(changes)))
        turned = recipe.augmentation
        if self.augmentation is not None:
            strengths = ("rotation_degrees", "zoom", "shift", "contrast")
            changed = {name: getattr(turned, name) * self.augmentation for name in strengths}
            turned = turned.model_copy(update=changed)
        rest = _given({"label_smoothing": self.label_smoothing, "optimizer": self.optimizer})
        if self.dropout is not None and recipe.pooled_dropout:
            rest["pooled_dropout"] = self.dropout
        return Recipe.model_validate(
            {
                **recipe.model_dump(),
                **rest,
                "stages": stages,
                "augmentation": turned,
                "head": self._head(recipe),
            }
        )

    def _head(self, recipe: Recipe) -> tuple[HeadBlock, ...]:
        blocks = recipe.head
        if self.head_units is not None:
            known = blocks or (HeadBlock(units=1),)
            blocks = tuple(
                known[min(number, len(known) - 1)].model_copy(update={"units": units})
                for number, units in enumerate(self.head_units)
            )
        if self.dropout is not None:
            blocks = tuple(block.model_copy(update={"dropout": self.dropout}) for block in blocks)
        return blocks


VARIED = tuple(Configuration.model_fields)
"""Names of what a search may vary."""

COUNTS = {"batch_size", "unfrozen_layers"}
"""Those that are whole numbers."""


class Between(_Frozen):
    """Numbers from `low` to `high`.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Whether magnitudes are equally likely, as for learning rates.
        step: Distance of neighbours; None for all numbers in between.
    """

    low: FiniteFloat
    high: FiniteFloat
    log: bool = False
    step: Annotated[FiniteFloat, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}: low has to be below high")
        if self.step and self.step > self.high - self.low:
            raise ValueError(f"step is {self.step:g}: there is no second value between low and high")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("log needs a low above 0, and no step")
        return self

    @property
    def ends(self) -> tuple[float, ...]:
        """Values that show whether all of them fit."""
        return self.low, self.high


class OneOf(_Frozen):
    """Some values.

    Attributes:
        options: The values, in the order of the configuration file.
    """

    options: Annotated[tuple[Any, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if len({str(option) for option in self.options}) < len(self.options):
            raise ValueError("an option is there twice")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that show whether all of them fit."""
        return self.options


Dimension = Between | OneOf
Space = dict[str, Dimension]


def read_space(given: Mapping[str, Any]) -> Space:
    """Read a search space from a configuration file.

    Args:
        given: By what is varied: a list of options, or a mapping with ``low``, ``high``, ``log``, ``step``.

    Raises:
        ValueError: A name that cannot be varied, with the nearest one; a range that is none; a value that
            does not fit.

    Example:
        >>> read_space({"dropout": [0.2, 0.5], "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}})
        ... # doctest: +ELLIPSIS
        {'dropout': OneOf(options=(0.2, 0.5)), 'learning_rate': Between(low=0.0001, ...)}
    """
    if not given:
        raise ValueError(f"The search space is empty. It may vary {', '.join(VARIED)}.")
    space: Space = {}
    for name, what in given.items():
        known_name(name, VARIED, "dimension of the search space")
        try:
            space[name] = OneOf(options=what) if isinstance(what, list) else Between.model_validate(what)
            for value in space[name].ends:
                Configuration.model_validate({name: whole(name, value)})
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(str(part) for part in (name, *problem["loc"]) if part not in {name, "options"})
            place = f"{name}.{place}" if place else name
            raise ValueError(
                f"{place}: {problem['msg']} (given: {what!r}). Expected a list of values, or low and high, "
                "with log or step."
            ) from None
        step = getattr(space[name], "step", None)
        if name in COUNTS and step and not float(step).is_integer():
            raise ValueError(f"{name}: step is {step:g}, and {name} is a whole number. Give a whole step.")
    return space


def whole(name: str, value: Any) -> Any:
    """A value as what is varied takes it: counts are whole numbers, lists are tuples."""
    if name in COUNTS and isinstance(value, float) and value.is_integer():
        return int(value)
    return tuple(value) if isinstance(value, list) else value


def _given(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}
