"""Recipes: everything that decides how a network is built and trained, as one object that is saved with it.

Nothing about a training hides in code or defaults: a :class:`Recipe` read back from ``recipe.json`` and the
same data give the same network again.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

BACKBONES = ("resnet50", "mobilenetv2", "compact")
RECIPES = ("best", "baseline", "head_first")

Share = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "mixed_bfloat16"]
Optimizer = Literal["adam", "adamw", "sgd"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HeadBlock(_Frozen):
    """One dense layer with ReLU on top of the pooled features, then what keeps it from memorising.

    Attributes:
        units: Width of the dense layer.
        batch_norm: Whether batch normalisation follows it.
        dropout: Share of its outputs that are dropped while training.
    """

    units: Annotated[int, Field(ge=1)]
    batch_norm: bool = False
    dropout: Share = 0.0


class Stage(_Frozen):
    """One stretch of training with one set of trained layers.

    Attributes:
        name: What logs and figures call it.
        epochs: Passes over the training set, at most.
        batch_size: Images a step, of all workers together.
        learning_rate: At the start of the stage, behind the warm-up if there is one.
        unfrozen_layers: How many of the backbone's last layers are trained: 0 trains the head alone, "all"
            everything.
        schedule: "plateau" lowers the rate where the validation loss no longer falls, and ends the stage
            where that does not help. "cosine" lets the rate fall to 0 along half a cosine, to the last of
            the epochs (Loshchilov and Hutter, "SGDR", ICLR 2017).
        warm_up_epochs: During which the rate rises from 0; a fraction counts.
    """

    name: str
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    unfrozen_layers: Annotated[int, Field(ge=0)] | Literal["all"]
    schedule: Literal["plateau", "cosine"] = "plateau"
    warm_up_epochs: Annotated[float, Field(ge=0)] = 0.0

    def rate_after(self, epochs: float, rate: float) -> float:
        """The learning rate after so many epochs of the stage, fractions counting.

        Args:
            epochs: In [0, `epochs` of the stage].
            rate: That it would have without schedule and warm-up.

        Example:
            >>> stage = Stage(name="all", epochs=10, batch_size=32, learning_rate=1e-3,
            ...               unfrozen_layers="all", schedule="cosine", warm_up_epochs=2)
            >>> [round(1e3 * stage.rate_after(epochs, 1e-3), 3) for epochs in (0, 1, 2, 6, 10)]
            [0.0, 0.5, 1.0, 0.5, 0.0]
        """
        if epochs < self.warm_up_epochs:
            return rate * epochs / self.warm_up_epochs
        if self.schedule == "plateau":
            return rate
        passed = (epochs - self.warm_up_epochs) / max(self.epochs - self.warm_up_epochs, 1e-9)
        return rate * (1 + math.cos(math.pi * passed)) / 2


class Augmentation(_Frozen):
    """How far a training image may be changed; drawn for every example.

    Attributes:
        flip: Whether half of the images are mirrored left to right.
        rotation_degrees: Rotations are uniform in ± this.
        zoom: Zooms are uniform in 1 ± this.
        shift: Shifts along either side are uniform in ± this share of it.
        contrast: Distances from the mean grey value are multiplied with a number that is uniform in 1 ± this.
        copies: So many draws an example take turns; None draws anew in every epoch.
    """

    flip: bool = True
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 18.0
    zoom: Share = 0.1
    shift: Share = 0.0
    contrast: Share = 0.0
    copies: Annotated[int, Field(ge=1)] | None = None

    @property
    def active(self) -> bool:
        """Whether any image is changed at all."""
        return self.moves or self.contrast > 0

    @property
    def moves(self) -> bool:
        """Whether any image is moved."""
        return self.flip or self.rotation_degrees > 0 or self.zoom > 0 or self.shift > 0

    @property
    def views(self) -> int | None:
        """Different views of an image that training sees in all its epochs; None where every one is new."""
        return self.copies if self.active else 1


NO_AUGMENTATION = Augmentation(flip=False, rotation_degrees=0, zoom=0)


class Recipe(_Frozen):
    """Everything that decides how a network is built and trained.

    Attributes:
        name: Name of the recipe it was made from.
        backbone: One of ``BACKBONES``.
        weights: "imagenet" (downloaded by Keras), the path of a weights file, or None for a random start.
        image_size: Height and width of the input in pixels.
        classes: Class keys in the order of the network's outputs.
        head: Dense layers between pooled features and softmax.
        pooled_dropout: Share of the pooled features that are dropped while training.
        stages: Stretches of training, in order.
        augmentation: How far a training image may be changed.
        mixup: Of the Beta distribution that decides how far images of a batch are blended, and their labels
            with them; 0 blends none. Each worker blends those of its own share.
        class_weights: Whether rare classes weigh more in the loss.
        label_smoothing: Share of the truth that is spread over all classes.
        early_stopping_patience: Epochs without a lower validation loss after which a stage ends.
        plateau_patience: Epochs without a lower validation loss after which the learning rate is lowered.
        plateau_factor: What it is then multiplied with.
        optimizer: "adam", "adamw", "sgd" (with a momentum of 0.9).
        weight_decay: Of "adamw": share of the learning rate by which weights shrink a step.
        precision: Of the arithmetic while training: "float32", or "mixed_bfloat16", with weights in float32.
        seed: From which initial weights, order, augmentation and dropout are drawn.

    Example:
        >>> recipe = make_recipe("baseline", backbone="mobilenetv2", weights="imagenet", image_size=224,
        ...                      classes=("glioma", "meningioma", "notumor", "pituitary"), seed=42)
        >>> [stage.unfrozen_layers for stage in recipe.stages]
        [0, 50]
        >>> Recipe.model_validate_json(recipe.model_dump_json()) == recipe
        True
    """

    name: str
    backbone: str
    weights: str | None
    image_size: Annotated[int, Field(ge=32)]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    head: tuple[HeadBlock, ...]
    pooled_dropout: Share = 0.0
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    augmentation: Augmentation = Augmentation()
    mixup: Annotated[float, Field(ge=0)] = 0.0
    class_weights: bool = True
    label_smoothing: Share = 0.0
    early_stopping_patience: Annotated[int, Field(ge=1)] = 5
    plateau_patience: Annotated[int, Field(ge=1)] = 3
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    optimizer: Optimizer = "adam"
    weight_decay: Annotated[float, Field(ge=0)] = 0.004
    precision: Precision = "float32"
    seed: int = 42

    @property
    def asks_twice(self) -> bool:
        """Whether frozen layers see the same images in every epoch, so that their answers can be kept."""
        can_repeat = self.augmentation.views is not None and not self.mixup
        return can_repeat and self.stages[0].unfrozen_layers != "all"

    @property
    def epochs(self) -> int:
        """Epochs of all stages together, at most."""
        return sum(stage.epochs for stage in self.stages)


def known_name(given: str, known: Collection[str], what: str) -> str:
    """Return `given` where it is one of the known names.

    Raises:
        ValueError: It is not; the message lists the names and the nearest match.

    Example:
        >>> known_name("compact", BACKBONES, "backbone")
        'compact'
    """
    if given in known:
        return given
    near = difflib.get_close_matches(given.lower(), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown {what} {given!r}: expected one of {', '.join(known)}.{hint}")


def known_recipe(name: str) -> str:
    """Return the name of a recipe where there is one of that name.

    Raises:
        ValueError: There is none, with the nearest one.
    """
    return known_name(name, RECIPES, "recipe")


def make_recipe(
    name: str,
    *,
    backbone: str,
    weights: str | None,
    image_size: int,
    classes: tuple[str, ...],
    seed: int,
    epochs: int | None = None,
    batch_size: int | None = None,
    augmented_copies: int | None = None,
    precision: Precision = "float32",
) -> Recipe:
    """Make a named recipe for a backbone.

    Args:
        name: "baseline" trains the head for a few epochs, then the last layers slowly. "head_first" trains
            the head until it learns no more, then the last layers for fewer epochs at 20 times the rate:
            linear probing, then fine-tuning (Kumar et al., "Fine-Tuning can Distort Pretrained Features and
            Underperform Out-of-Distribution", ICLR 2022). Behind cached features (`augmented_copies`) its
            many epochs of the head take seconds. "best" trains all layers at once under a rate that rises
            and falls along a cosine, on images that are moved further and blended.
        backbone: One of ``BACKBONES``.
        weights: As in :class:`Recipe`.
        image_size: Height and width of the model inputs in pixels.
        classes: Class keys in the order of the labels.
        seed: As in :class:`Recipe`.
        epochs: A limit on the epochs of each stage, for a quick try; None takes the recipe's own.
        batch_size: Images a step, of all workers together; None takes the recipe's own.
        augmented_copies: So many draws of augmentation an example take turns; 0 moves no image, None draws
            anew in every epoch.
        precision: As in :class:`Recipe`.

    Raises:
        ValueError: A name that is not known, with the nearest match; a recipe that is not for the backbone.
    """
    known_recipe(name)
    known_name(backbone, BACKBONES, "backbone")
    if backbone == "compact" and name == "head_first":
        raise ValueError(
            f"Recipe {name!r} first trains the head on a pretrained base, and 'compact' has none. Ask for "
            "training.recipe=best, or for training.backbone=resnet50 or mobilenetv2."
        )
    if backbone == "compact":
        own = _compact()
    else:
        own = _best(backbone) if name == "best" else _pretrained(backbone, name)
    stages: tuple[Stage, ...] = own.pop("stages")
    if epochs is not None:
        stages = tuple(stage.model_copy(update={"epochs": min(stage.epochs, epochs)}) for stage in stages)
    if batch_size is not None:
        stages = tuple(stage.model_copy(update={"batch_size": batch_size}) for stage in stages)
    augmentation = own.pop("augmentation", Augmentation())
    if augmented_copies is not None:
        copies = {"copies": augmented_copies}
        augmentation = augmentation.model_copy(update=copies) if augmented_copies else NO_AUGMENTATION
    return Recipe(
        name=name,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        classes=classes,
        stages=stages,
        augmentation=augmentation,
        precision=precision,
        seed=seed,
        **own,
    )


def _pretrained(backbone: str, name: str) -> dict[str, Any]:
    """First the head on a frozen base, then the last layers of the base with it."""
    unfrozen = {"resnet50": 30, "mobilenetv2": 50}[backbone]
    own: dict[str, Any]
    if name == "baseline":
        frozen, tuned, batch, rate, own = 5, 10, 16, 1e-5, {}
    else:
        frozen, tuned, batch, rate, own = 15, 6, 32, 2e-4, {"plateau_patience": 2}
    return {
        "head": (HeadBlock(units=256, batch_norm=True, dropout=0.5), HeadBlock(units=128, dropout=0.3)),
        "stages": (
            Stage(name="frozen base", epochs=frozen, batch_size=batch, learning_rate=1e-3, unfrozen_layers=0),
            Stage(
                name="fine-tuning", epochs=tuned, batch_size=batch, learning_rate=rate,
                unfrozen_layers=unfrozen,
            ),
        ),
        **own,
    }  # fmt: skip


def _best(backbone: str) -> dict[str, Any]:
    """All layers from the start, on blended images: chosen by validation."""
    return {
        "head": (),
        "pooled_dropout": 0.4,
        "stages": (
            Stage(
                name="all layers", epochs=14, batch_size=32, unfrozen_layers="all", schedule="cosine",
                learning_rate={"resnet50": 2e-4, "mobilenetv2": 8e-4}[backbone], warm_up_epochs=1.5,
            ),
        ),
        "augmentation": Augmentation(rotation_degrees=18, zoom=0.12, shift=0.06, contrast=0.2),
        "mixup": 0.4,
        "class_weights": False,
        "optimizer": "adamw",
    }  # fmt: skip


def _compact() -> dict[str, Any]:
    """All layers from the start, there being no weights to protect.

    From random weights the validation loss is noisy at first, hence the longer patience.
    """
    stage = Stage(name="from scratch", epochs=24, batch_size=16, learning_rate=1e-3, unfrozen_layers="all")
    return {
        "head": (HeadBlock(units=128, dropout=0.3),),
        "stages": (stage,),
        "augmentation": Augmentation(rotation_degrees=12.0),
        "early_stopping_patience": 8,
    }
