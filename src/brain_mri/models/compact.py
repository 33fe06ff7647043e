"""A small convolutional network, trained from scratch without any download."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

FILTERS = (16, 32, 48, 64, 96)
"""Channels of the five convolutions."""


def build_compact(inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Return features of grey pictures: the backbone `compact`, 102,032 parameters.

    The picture is halved by averaging and brought to mean 0 and deviation 1, so that a scanner's brightness
    and window do not matter. No layer depends on other pictures of the batch: however a batch is shared among
    workers, the result is the same. Features are the mean of each pattern, which tells how much of it there
    is, and its maximum, which finds a small lesion.

    Args:
        inputs: Tensor of shape (batch, height, width, 1), float32 in [0, 1]; sides of 32 or more.

    Returns:
        Tensor of shape (batch, 192), float32.

    Example:
        >>> inputs = keras.Input((224, 224, 1))
        >>> keras.Model(inputs, build_compact(inputs)).output_shape
        (None, 192)
    """
    from keras import layers

    tensor = layers.AveragePooling2D(2, name="compact_halve")(inputs)
    tensor = layers.LayerNormalization(
        axis=(1, 2, 3), center=False, scale=False, epsilon=1e-5, name="compact_standardise"
    )(tensor)
    for number, filters in enumerate(FILTERS, start=1):
        first, last = number == 1, number == len(FILTERS)
        tensor = layers.Conv2D(
            filters,
            kernel_size=5 if first else 3,
            strides=2 if first else 1,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"compact_convolution_{number}",
        )(tensor)
        if not first and not last:
            tensor = layers.MaxPooling2D(2, name=f"compact_pool_{number}")(tensor)
    mean = layers.GlobalAveragePooling2D(name="compact_mean")(tensor)
    maximum = layers.GlobalMaxPooling2D(name="compact_maximum")(tensor)
    return layers.Concatenate(name="compact_features")([mean, maximum])
