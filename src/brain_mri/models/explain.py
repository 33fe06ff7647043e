"""Where in an image a network saw a class: Grad-CAM, Grad-CAM++ and HiResCAM.

All weigh the feature maps of a late convolution by how much the class score would gain by them, and show
their sum: Grad-CAM by the mean gradient of a map (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep
Networks via Gradient-based Localization", ICCV 2017), Grad-CAM++ by a mean that counts few strong places as
much as many (Chattopadhay et al., "Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks",
WACV 2018), HiResCAM by the gradient of every place (Draelos and Carin, "Use HiResCAM instead of Grad-CAM for
faithful explanations of convolutional neural networks", 2020). Behind global average pooling and one dense
layer the first and the last are the same. A map says what the network looked at, not whether it was right to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brain_mri.models.backbones import find_backbone
from brain_mri.models.recipe import BACKBONES, known_name

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Method = Literal["grad-cam", "grad-cam++", "hirescam"]

_MOST_PROBABLE = -1


class Explanations(NamedTuple):
    """What a network answers and where it saw it.

    Attributes:
        maps: float32 ``(n, h, w)`` in [0, 1], as large as the images; the largest value of a map is 1 unless
            nothing spoke for the class, which leaves it 0 everywhere.
        probabilities: float32 ``(n, classes)``.
    """

    maps: NDArray[np.float32]
    probabilities: NDArray[np.float32]


Explainer: TypeAlias = Callable[[NDArray[np.uint8], ArrayLike | None], Explanations]
"""From a batch ``(n, h, w, channels)`` and the class to look for in each image ``(n,)``, None for the most
probable, to explanations."""


def make_explainer(model: keras.Model, method: Method = "grad-cam") -> Explainer:
    """Prepare explanations of a classifier, for many batches.

    Layers that prepare the input inside the model, a backbone that is nested in it, and one that pools its
    features itself make no difference: what is looked at is the last feature map that there is, or the one
    that the backbone names (:attr:`brain_mri.models.backbones.Backbone.explained_layer`).

    Args:
        model: From images ``(b, h, w, channels)`` to probabilities, its last layer dense with a softmax.
        method: "grad-cam", "grad-cam++" or "hirescam".

    Raises:
        ValueError: The network has no feature map, or another last layer.

    Example:
        >>> explain = make_explainer(model)  # doctest: +SKIP
        >>> explain(images, None).maps.shape  # doctest: +SKIP
        (12, 224, 224)
    """
    import tensorflow as tf

    known_name(method, get_args(Method), "method")
    front, behind = _cut(model)
    last = model.layers[-1]

    def explain(images: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.cast(front(tf.cast(images, tf.float32), training=False), tf.float32)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(features)
            values = features
            for piece in behind:
                values = piece(values, training=False)
            # The score before the softmax, which would mix what speaks for a class with what speaks against
            # the others.
            scores = tf.matmul(tf.cast(values, tf.float32), last.kernel) + last.bias
            best = tf.argmax(scores, axis=1, output_type=tf.int64)
            wanted = tf.gather(scores, tf.where(chosen < 0, best, chosen), batch_dims=1)
        weights = _weights(features, tape.gradient(wanted, features), method)
        maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))
        peak = tf.reduce_max(maps, axis=(1, 2), keepdims=True)
        maps = tf.image.resize(tf.math.divide_no_nan(maps, peak)[..., tf.newaxis], tf.shape(images)[1:3])
        peak = tf.reduce_max(maps, axis=(1, 2), keepdims=True)  # interpolation may miss it
        return tf.math.divide_no_nan(maps, peak)[..., 0], tf.nn.softmax(scores)

    image = tf.TensorSpec(model.input_shape, tf.uint8)
    compiled = tf.function(explain, input_signature=[image, tf.TensorSpec((None,), tf.int64)])

    def explain_batch(images: NDArray[np.uint8], classes: ArrayLike | None) -> Explanations:
        chosen = np.full(len(images), _MOST_PROBABLE) if classes is None else np.asarray(classes)
        if chosen.shape != (len(images),) or (classes is not None and (chosen < 0).any()):
            raise ValueError(f"Expected a class index for each of {len(images)} images, got {classes!r}.")
        maps, probabilities = compiled(images, chosen.astype(np.int64))
        return Explanations(maps.numpy(), probabilities.numpy())

    return explain_batch


def pointing_game(maps: NDArray[np.float32], lesions: NDArray[np.bool_]) -> float:
    """Share of maps whose highest point lies on the lesion (Zhang et al., "Top-down Neural Attention by
    Excitation Backprop", IJCV 2018).

    Args:
        maps: ``(n, h, w)``.
        lesions: True where the lesion of each image is, ``(n, h, w)``; every image has one.

    Raises:
        ValueError: Shapes do not fit, or an image has no lesion.

    Example:
        >>> pointing_game(np.eye(2, dtype=np.float32)[None], np.array([[[True, False], [False, False]]]))
        1.0
    """  # noqa: D205 - the reference belongs to the first sentence
    if maps.shape != lesions.shape or not len(maps) or not lesions.any(axis=(1, 2)).all():
        raise ValueError(f"Expected a lesion for each map: maps {maps.shape}, lesions {lesions.shape}.")
    highest = maps.reshape(len(maps), -1).argmax(axis=1)
    return float(lesions.reshape(len(maps), -1)[np.arange(len(maps)), highest].mean())


def share_inside(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of each map that lies inside a mask, such as that of the head.

    Args:
        maps: ``(n, h, w)``, 0 or more.
        masks: ``(n, h, w)``.

    Returns:
        In [0, 1], shape ``(n,)``; NaN where a map is 0 everywhere.

    Example:
        >>> share_inside(np.ones((1, 2, 2), np.float32), np.array([[[True, False], [True, True]]]))
        array([0.75])
    """
    whole = maps.sum(axis=(1, 2), dtype=np.float64)
    inside = (maps * masks).sum(axis=(1, 2), dtype=np.float64)
    return np.asarray(np.divide(inside, whole, out=np.full(len(maps), np.nan), where=whole > 0))


def _weights(features: tf.Tensor, gradients: tf.Tensor, method: Method) -> tf.Tensor:
    """Weight of each feature map, ``(b, 1, 1, c)``, or of each place on it, ``(b, h, w, c)``."""
    import tensorflow as tf

    if method == "hirescam":
        return gradients
    if method == "grad-cam":
        return tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    # Equation 19 of Grad-CAM++ for a score that goes through an exponential.
    squares = gradients**2
    sums = tf.reduce_sum(features, axis=(1, 2), keepdims=True)
    alphas = tf.math.divide_no_nan(squares, 2 * squares + sums * gradients**3)
    return tf.reduce_sum(alphas * tf.nn.relu(gradients), axis=(1, 2), keepdims=True)


def _cut(model: keras.Model) -> tuple[keras.Model, list[keras.Model]]:
    """The network up to its last feature map, and what comes between that and the last layer."""
    import keras

    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.softmax:
        raise ValueError(f"{model.name} ends in {last.name!r}, not in a dense layer with a softmax.")
    nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if not nested:
        features = _last_feature_map(model)
        return keras.Model(model.input, features), [keras.Model(features, last.input)]
    backbone = nested[-1]
    place = model.layers.index(backbone)
    features = _last_feature_map(backbone)
    if backbone.name in BACKBONES and (named := find_backbone(backbone.name).explained_layer):
        features = backbone.get_layer(named).output
    inner = keras.Model(backbone.input, features)
    front = keras.Model(model.input, inner(model.layers[place - 1].output))
    pieces: list[tuple[Any, Any]] = [(features, backbone.output)]
    pieces.append((model.layers[place + 1].input, last.input))
    return front, [keras.Model(start, end) for start, end in pieces if start is not end]


def _last_feature_map(model: keras.Model) -> keras.KerasTensor:
    import keras

    for layer in reversed(model.layers):
        if len(layer.output.shape) == 4 and not isinstance(layer, keras.layers.InputLayer):
            return layer.output
    raise ValueError(f"{model.name} has no feature map of shape (b, h, w, c): Grad-CAM has nothing to show.")
