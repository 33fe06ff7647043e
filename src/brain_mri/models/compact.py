"""A small convolutional network, trained from scratch without any download."""

from __future__ import annotations

from typing import Any


def build_compact(inputs: Any) -> Any:
    """Return features of grey pictures: the backbone `compact`.

    Args:
        inputs: Keras tensor of shape (batch, height, width, 1), float32 in [0, 1]; sides of 64 or more.

    Returns:
        Keras tensor of shape (batch, 192): how strong each of 96 patterns is on average and at its strongest.

    Example:
        >>> inputs = keras.Input((224, 224, 1))  # doctest: +SKIP
        >>> model = keras.Model(inputs, build_compact(inputs))  # doctest: +SKIP
    """
    from keras import layers

    tensor = layers.AveragePooling2D(2, name="compact_shrink")(inputs)
    for number, (filters, stride) in enumerate([(16, 2), (32, 1), (48, 1), (64, 1), (96, 1)]):
        tensor = layers.Conv2D(
            filters, 5 if number == 0 else 3, strides=stride, padding="same", use_bias=False,
            kernel_initializer="he_normal", name=f"compact_conv{number + 1}",
        )(tensor)  # fmt: skip
        tensor = layers.GroupNormalization(8, name=f"compact_norm{number + 1}")(tensor)
        tensor = layers.ReLU(name=f"compact_relu{number + 1}")(tensor)
        if number in (1, 2, 3):
            tensor = layers.MaxPooling2D(2, name=f"compact_pool{number + 1}")(tensor)
    average = layers.GlobalAveragePooling2D(name="compact_average")(tensor)
    strongest = layers.GlobalMaxPooling2D(name="compact_strongest")(tensor)
    return layers.Concatenate(name="compact_features")([average, strongest])
