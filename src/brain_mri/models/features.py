"""What a frozen base computes, computed once: by tasks, through an engine that needs no TensorFlow."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brain_mri.inference.engine import engine_version, open_engine
from brain_mri.models.augmentation import VIEWS_STAGE, augment, draw
from brain_mri.models.cut import Cut, find_cut, frozen_part, listed
from brain_mri.models.export import onnx_graph
from brain_mri.models.network import build_network

if TYPE_CHECKING:
    import keras

    from brain_mri.models.recipe import Recipe
    from brain_mri.models.shards import Shards

FeatureDtype = Literal["float32", "float16"]

_ENGINE_BATCH = 4  # what it holds of a layer stays in the processor's cache
_opened: dict[str, Any] = {}  # the graph that this process used last, by its key


class EngineError(RuntimeError):
    """The engine does not compute what the frozen layers compute."""


class StageFeatures(NamedTuple):
    """What frozen layers compute of all images of a stage.

    Attributes:
        cut: What crosses from them to trained ones.
        dtype: In which it is stored.
        train: Of the training images, a set a view (:attr:`brain_mri.models.recipe.Augmentation.views`).
        validation: Of the validation images, as they are.
    """

    cut: Cut
    dtype: str
    train: tuple[Shards, ...]
    validation: Shards


Features = Mapping[int, StageFeatures]
"""By number of the stage; those that are left out compute all their layers in every epoch."""


@dataclass(frozen=True, eq=False)
class FrozenPart:
    """The layers before a cut, with their weights.

    Attributes:
        model: The whole network, in float32.
        cut: The cut.
        recipe: That it was built from.
    """

    model: keras.Model
    cut: Cut
    recipe: Recipe

    @cached_property
    def key(self) -> str:
        """Fingerprint of all that decides about what it computes: layers and weights."""
        layers = [self.recipe.backbone, self.recipe.image_size, self.cut, importlib.metadata.version("keras")]
        digest = hashlib.sha256(json.dumps(layers).encode())
        for values in frozen_part(self.model, self.recipe, [self.cut]).get_weights():
            digest.update(values.tobytes())
        return digest.hexdigest()

    def name_of(self, dtype: FeatureDtype, view: int | None) -> str:
        """Equal names, equal answers: what decides about them, images left out.

        Args:
            dtype: In which they are stored.
            view: Which of the draws of an image, from 1; None takes it as it is.
        """
        drawn: list[Any] = []
        if view is not None and self.recipe.augmentation.active:
            options = self.recipe.augmentation.model_dump(mode="json", exclude={"copies"})
            drawn = [options, self.recipe.seed, view]
        ingredients = [engine_version(), self.key, dtype, drawn]
        return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def to_onnx(parts: Sequence[FrozenPart], images: NDArray[np.uint8], dtype: FeatureDtype) -> bytes:
    """Export parts of one network as one graph, and see that the engine answers as they do.

    Args:
        parts: From :func:`frozen_parts`; the graph has their outputs one after another.
        images: uint8 ``(n, h, w)``, a few real ones.
        dtype: In which answers will be stored.

    Raises:
        EngineError: The answers differ by more than :data:`LARGEST_DIFFERENCE`.
    """
    network = frozen_part(parts[0].model, parts[0].recipe, [part.cut for part in parts])
    pixels = images[..., np.newaxis].astype(np.float32)
    expected = [np.asarray(values) for values in listed(network(pixels, training=False))]
    content = onnx_graph(network)
    answers = [values.astype(dtype) for values in open_engine(content)(pixels)]
    difference = max(map(relative_difference, answers, expected))
    if not difference <= LARGEST_DIFFERENCE[dtype]:  # not a number is refused too
        raise EngineError(
            f"The engine's answers differ from those of the frozen layers by {difference:.2g} (root mean "
            f"square, of {len(images)} images); at most {LARGEST_DIFFERENCE[dtype]:g} is accepted for "
            f"{dtype}. Set training.cache_dtype=float32 or training.cache_gib=0, and check versions "
            "against requirements.lock."
        )
    return content


LARGEST_DIFFERENCE = {"float32": 1e-4, "float16": 1e-3}
"""Between the engine's answers and Keras', as root mean square over that of the answers, by their dtype."""


def relative_difference(answers: NDArray[Any], expected: NDArray[Any]) -> float:
    """Root mean square of a difference, over that of what was expected."""
    size = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    return float(np.sqrt(np.mean(np.square(answers - expected, dtype=np.float64)))) / max(size, 1e-30)


def frozen_parts(recipe: Recipe) -> dict[int, FrozenPart]:
    """The frozen parts of the stages of a recipe that have one, by the number of the stage.

    There are none where every view of an image is new: nothing would be asked for twice.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
    """
    if not recipe.asks_twice:
        return {}
    model = build_network(recipe.model_copy(update={"precision": "float32"}))
    cuts = {number: find_cut(model, recipe, number) for number in range(len(recipe.stages))}
    return {number: FrozenPart(model, cut, recipe) for number, cut in cuts.items() if cut is not None}


@dataclass(frozen=True)
class Extraction:
    """What a task computes of images: picklable, and small.

    Attributes:
        graph: Reads the graph of :func:`to_onnx`; asked once a process.
        key: The same for the same graph.
        dtype: Of the answers.
        recipe: Names augmentation and seed.
        view: Which of the draws of an image, from 1; None takes it as it is.
    """

    graph: Callable[[], bytes]
    key: str
    dtype: FeatureDtype
    recipe: Recipe
    view: int | None

    def __call__(self, index: NDArray[np.int64], pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Compute what crosses the cuts.

        Args:
            index: Numbers of the images ``(n,)``, as training has them.
            pixels: uint8 ``(n, h, w)``.

        Returns:
            An array ``(n, …)`` for every output of the graph.
        """
        if self.key not in _opened:
            _opened.clear()
            _opened[self.key] = open_engine(self.graph(), threads=1)
        parts = []
        for start in range(0, len(pixels), _ENGINE_BATCH):
            own = slice(start, start + _ENGINE_BATCH)
            answers = _opened[self.key](self._moved(index[own], pixels[own]))
            parts.append([values.astype(self.dtype) for values in answers])
            if not all(np.isfinite(values).all() for values in parts[-1]):
                raise EngineError(
                    f"What the frozen layers compute is no number, or too large for {self.dtype}. "
                    "Set training.cache_dtype=float32, or look at the weights."
                )
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _moved(self, index: NDArray[np.int64], pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = pixels[..., np.newaxis].astype(np.float32)
        if self.view is None or not self.recipe.augmentation.active:
            return images
        drawn = draw(index, self.recipe.seed, VIEWS_STAGE, self.view)
        return np.asarray(augment(images, drawn, self.recipe.augmentation))
