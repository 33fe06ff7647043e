"""Backbones by name: what turns an image into features, and where its weights come from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from brain_mri.models.recipe import known_name

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

WEIGHT_SUFFIXES = (".weights.h5", ".h5", ".keras")


class WeightsError(ValueError):
    """The weights that were asked for cannot be had or do not fit."""


@dataclass(frozen=True)
class Backbone:
    """How a backbone is built and what its input looks like.

    Attributes:
        build: From (image size, "imagenet" or None) to a Keras model ending in a feature map
            ``(b, h, w, c)``, or in features that it pooled itself ``(b, c)``.
        channels: Of its input; grey images are replicated.
        scaling: Of its input from grey values in [0, 255]: "unit" to [0, 1], "symmetric" to [-1, 1], "caffe"
            minus ImageNet's mean blue, green and red (:func:`keras.applications.resnet50.preprocess_input`).
        pretrained: Whether Keras offers ImageNet weights.
        explained_layer: Whose feature map shows where a class was seen; None for the last one.
    """

    build: Callable[[int, str | None], keras.Model]
    channels: int
    scaling: Literal["unit", "symmetric", "caffe"]
    pretrained: bool
    explained_layer: str | None = None


def _resnet50(image_size: int, weights: str | None) -> keras.Model:
    """He et al., "Deep Residual Learning", CVPR 2016."""
    import keras

    return keras.applications.ResNet50(
        include_top=False, weights=weights, input_shape=(image_size, image_size, 3), name="resnet50"
    )


def _mobilenetv2(image_size: int, weights: str | None) -> keras.Model:
    """Sandler et al., "MobileNetV2", CVPR 2018; width 1.0."""
    import keras

    return keras.applications.MobileNetV2(
        include_top=False, weights=weights, input_shape=(image_size, image_size, 3), name="mobilenetv2"
    )


def _compact(image_size: int, weights: str | None) -> keras.Model:
    """Ours; see :mod:`brain_mri.models.compact`."""
    import keras

    from brain_mri.models.compact import build_compact

    inputs = keras.Input((image_size, image_size, 1))
    return keras.Model(inputs, build_compact(inputs), name="compact")


_BACKBONES = {
    "resnet50": Backbone(_resnet50, channels=3, scaling="caffe", pretrained=True),
    "mobilenetv2": Backbone(_mobilenetv2, channels=3, scaling="symmetric", pretrained=True),
    # The places of its last map are 32 pixels wide, more than many a lesion.
    "compact": Backbone(_compact, 1, "unit", pretrained=False, explained_layer="compact_convolution_4"),
}


def find_backbone(name: str) -> Backbone:
    """Return the backbone of that name.

    Raises:
        ValueError: There is none, with the nearest match.

    Example:
        >>> find_backbone("mobilenetv2").scaling
        'symmetric'
    """
    return _BACKBONES[known_name(name, _BACKBONES, "backbone")]


def build_backbone(name: str, weights: str | None, image_size: int) -> keras.Model:
    """Build a backbone with its weights.

    Args:
        name: A known backbone.
        weights: "imagenet" (downloaded by Keras on first use), the path of a ``.weights.h5``, ``.h5`` or
            ``.keras`` file of this backbone without its top, or None for a random start.
        image_size: Height and width of its input in pixels.

    Returns:
        A Keras model from ``(b, image_size, image_size, channels)`` float32 to features ``(b, h, w, c)`` or
        ``(b, c)``.

    Raises:
        WeightsError: The weights cannot be had or do not fit; never a random start in silence.
        ValueError: An unknown name.

    Example:
        >>> build_backbone("mobilenetv2", None, 96).output_shape  # doctest: +SKIP
        (None, 3, 3, 1280)
    """
    backbone = find_backbone(name)
    if weights is None:
        return backbone.build(image_size, None)
    if weights == "imagenet":
        return _with_imagenet_weights(name, backbone, image_size)
    path = _weights_file(name, weights)
    model = backbone.build(image_size, None)
    _load_weights(name, model, path)
    return model


def _choices(name: str) -> str:
    imagenet = "'imagenet' (downloaded by Keras), " if _BACKBONES[name].pretrained else ""
    return (
        f"Choose training.weights: {imagenet}the path of a {' or '.join(WEIGHT_SUFFIXES)} file of {name} "
        "without its top, or null for a random start; or training.backbone=compact, which needs none."
    )


def _with_imagenet_weights(name: str, backbone: Backbone, image_size: int) -> keras.Model:
    if not backbone.pretrained:
        raise WeightsError(f"There are no ImageNet weights for {name}. {_choices(name)}")
    try:
        return backbone.build(image_size, "imagenet")
    except Exception as error:  # a proxy, a firewall, a broken cache: each raises its own
        raise WeightsError(
            f"The ImageNet weights of {name} could not be downloaded or read: {error}. {_choices(name)}"
        ) from error


def _weights_file(name: str, weights: str) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"No weights file at {path} (looked from {Path.cwd()}). {_choices(name)}")
    if not path.name.endswith(WEIGHT_SUFFIXES):
        raise WeightsError(f"{path} does not look like a weights file. {_choices(name)}")
    return path


def _load_weights(name: str, model: keras.Model, path: Path) -> None:
    import keras

    kernels = [variable for variable in model.weights if len(variable.shape) > 1]
    random_start = [kernel.numpy() for kernel in kernels]
    try:
        if path.suffix == ".keras":
            model.set_weights(keras.saving.load_model(path, compile=False).get_weights())
        else:
            model.load_weights(path)
    except Exception as error:  # h5py, zipfile and Keras each have their own
        raise WeightsError(
            f"{path} holds no weights that fit {name} without its top: {error}. {_choices(name)}"
        ) from error
    # Keras passes over layers that some files lack with a warning only; they would start from random weights.
    missed = [
        kernel.path
        for kernel, start in zip(kernels, random_start, strict=True)
        if np.array_equal(kernel.numpy(), start)
    ]
    if missed:
        raise WeightsError(f"{path} has no weights for {', '.join(missed)} of {name}. {_choices(name)}")
    log.info("Backbone %s: weights from %s.", name, path)
