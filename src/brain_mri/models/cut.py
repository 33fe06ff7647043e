"""The cut between what frozen layers compute and what trained ones take.

A layer whose weights nobody trains, fed by such layers alone, answers an image the same way in every epoch.
So its answers can be computed once (:mod:`brain_mri.models.features`), and training begins behind the cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from brain_mri.models.network import set_trained_layers

if TYPE_CHECKING:
    import keras

    from brain_mri.models.recipe import Recipe


FEATURES = "features"
"""What a tensor is called that leaves the backbone."""


class CutTensor(NamedTuple):
    """A tensor that crosses the cut.

    Attributes:
        layer: Name of the layer of the backbone whose output it is, or `FEATURES`.
        shape: Of what is kept of it for an image.
        stride: Every how manieth row and column is kept: behind it, 1×1 convolutions with that stride read
            nothing else.
    """

    layer: str
    shape: tuple[int, ...]
    stride: int


class Cut(NamedTuple):
    """Where a network falls into a frozen and a trained part.

    Attributes:
        tensors: That cross it.
    """

    tensors: tuple[CutTensor, ...]

    @property
    def in_backbone(self) -> bool:
        """Whether the backbone itself is cut, or only the head is trained."""
        return self.tensors[0].layer != FEATURES


def find_cut(model: keras.Model, recipe: Recipe, stage: int) -> Cut | None:
    """Find what crosses from layers that no stage has trained so far to those that this one may train.

    Args:
        model: From :func:`brain_mri.models.network.build_network`; its layers are frozen and unfrozen here.
        recipe: That it was built from.
        stage: Number of the stage, from 0.

    Returns:
        None where nothing with weights is frozen.

    Example:
        >>> find_cut(model, recipe, 0)  # MobileNetV2 with a frozen base  # doctest: +SKIP
        Cut(tensors=(CutTensor(layer='features', shape=(1280,), stride=1),))
    """
    import keras

    backbone = model.get_layer(recipe.backbone)
    # What an earlier stage trained is not what the network began with.
    widest = max(recipe.stages[: stage + 1], key=lambda each: _unfrozen(each.unfrozen_layers))
    set_trained_layers(model, recipe, widest)
    if not backbone.trainable_weights:
        return Cut((_tensor(FEATURES, head_tensors(model, recipe)[1], 1),))
    frozen: dict[int, keras.layers.Layer] = {}
    takers: dict[str, list[keras.layers.Layer]] = {}  # layers behind the cut, by the one before it
    for layer in backbone.layers:  # from input to output
        inputs = [] if isinstance(layer, keras.layers.InputLayer) else listed(layer.input)
        if not layer.trainable_weights and all(id(tensor) in frozen for tensor in inputs):
            frozen[id(layer.output)] = layer
            continue
        for tensor in inputs:
            if id(tensor) in frozen:
                takers.setdefault(frozen[id(tensor)].name, []).append(layer)
    if not any(layer.weights for layer in frozen.values()):
        return None
    tensors = (
        _tensor(name, backbone.get_layer(name).output, _stride(layers)) for name, layers in takers.items()
    )
    return Cut(tuple(tensors))


def head_tensors(model: keras.Model, recipe: Recipe) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """What leaves the backbone, and what enters the first layer of the head that has weights or draws.

    Between them nothing is trained: they are before and behind the pooling, or the same.
    """
    import keras

    names = [layer.name for layer in model.layers]
    behind = model.layers[names.index(recipe.backbone) + 1 :]
    first = next(layer for layer in behind if layer.weights or isinstance(layer, keras.layers.Dropout))
    return behind[0].input, first.input


def frozen_part(model: keras.Model, recipe: Recipe, cuts: Sequence[Cut]) -> keras.Model:
    """The layers before some cuts, as one network that computes what they have in common once.

    Returns:
        From grey images ``(b, h, w, 1)`` to what crosses the cuts, one after another.
    """
    import keras

    backbone = model.get_layer(recipe.backbone)
    inside = [tensor for cut in cuts if cut.in_backbone for tensor in cut.tensors]
    outputs = [backbone.get_layer(tensor.layer).output for tensor in inside]
    behind = not all(cut.in_backbone for cut in cuts)
    inner = keras.Model(backbone.input, [*outputs, backbone.output] if behind else outputs)
    values = listed(inner(model.get_layer("scale").output))
    kept = [
        value if tensor.stride == 1 else value[:, :: tensor.stride, :: tensor.stride]
        for value, tensor in zip(values, inside, strict=False)
    ]
    features = values[-1]
    leaving, entering = head_tensors(model, recipe)
    if behind and leaving is not entering:
        features = keras.Model(leaving, entering)(features)
    crossing = []
    for cut in cuts:
        crossing += [kept.pop(0) for _ in cut.tensors] if cut.in_backbone else [features]
    return keras.Model(model.input, crossing)


def trained_part(model: keras.Model, recipe: Recipe, cut: Cut) -> keras.Model | None:
    """The layers between a cut and the head.

    Returns:
        A network from what crosses the cut, whole again (see :func:`restored`), to what enters the head; None
        where that is what crosses it.
    """
    import keras

    if not cut.in_backbone:
        return None
    backbone = model.get_layer(recipe.backbone)
    inner = keras.Model([backbone.get_layer(tensor.layer).output for tensor in cut.tensors], backbone.output)
    leaving, entering = head_tensors(model, recipe)
    if leaving is entering:
        return inner
    inputs = [keras.Input(tensor.shape[1:]) for tensor in inner.inputs]
    return keras.Model(inputs, keras.Model(leaving, entering)(inner(inputs)))


def restored(values: Any, stride: int, side: int) -> Any:
    """Put rows and columns that were kept at their places again; nobody reads what stands between."""
    import tensorflow as tf

    if stride == 1:
        return values
    return tf.repeat(tf.repeat(values, stride, axis=1), stride, axis=2)[:, :side, :side]


def _unfrozen(layers: int | str) -> float:
    return math.inf if layers == "all" else float(layers)


def listed(tensors: Any) -> list[Any]:
    """Several tensors, or the only one, which Keras takes out of its list."""
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


def _tensor(name: str, output: keras.KerasTensor, stride: int) -> CutTensor:
    shape = tuple(int(side) for side in output.shape[1:])
    if stride > 1:
        shape = (-(-shape[0] // stride), -(-shape[1] // stride), *shape[2:])
    return CutTensor(name, shape, stride)


def _stride(takers: list[keras.layers.Layer]) -> int:
    """The stride of 1×1 convolutions, where nothing else takes a tensor."""
    import keras

    strides = {
        layer.strides[0]
        if isinstance(layer, keras.layers.Conv2D)
        and layer.kernel_size == (1, 1)
        and layer.strides[0] == layer.strides[1]
        else 1
        for layer in takers
    }
    return int(strides.pop()) if len(strides) == 1 else 1
