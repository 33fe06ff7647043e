"""Answers of a trained Keras network on a set of images, for calibration and reporting."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

    from brain_mri.models.shards import Shards


class Predictions(NamedTuple):
    """Answers and truth, a row per image, in stored order.

    Attributes:
        scan_ids: str ``(n,)``.
        labels: int64 ``(n,)``.
        probabilities: float32 ``(n, classes)``, as the network gives them: not calibrated.
    """

    scan_ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def predict_shards(model: keras.Model, shards: Shards, batch_size: int = 64) -> Predictions:
    """Ask a network about every image of a set; only the answers are held in memory.

    Args:
        model: From :func:`brain_mri.models.network.build_network`, trained.
        shards: Images of the size that the network expects.
        batch_size: Images at a time; it changes the speed and not the answers.

    Raises:
        ValueError: There are no images.

    Example:
        >>> predictions = predict_shards(model, shards)  # doctest: +SKIP
        >>> (predictions.probabilities.argmax(axis=1) == predictions.labels).mean()  # doctest: +SKIP
        0.93
    """
    import tensorflow as tf

    size = shards.image_size

    def answer(pixels: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(pixels, tf.float32)[..., tf.newaxis], training=False)

    compiled = tf.function(answer, input_signature=[tf.TensorSpec((None, size, size), tf.uint8)])
    parts = [
        (scan_ids, labels, compiled(pixels).numpy())
        for scan_ids, labels, pixels in shards.batches(batch_size)
    ]
    if not parts:
        raise ValueError("There are no images to predict.")
    scan_ids, labels, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Predictions(scan_ids, labels, probabilities)
