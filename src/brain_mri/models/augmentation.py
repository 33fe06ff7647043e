"""Flips, rotations, zooms, shifts, contrast, mixing, drawn per example: in one epoch, always the same for it.

The draws are a hash of (seed, stage, epoch, number of the example). So they depend neither on the order of
the batches nor on how many workers share the set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

    from brain_mri.models.recipe import Augmentation

DRAWS = 7
"""Numbers drawn per example: flip, rotation, zoom, shift right and down, contrast, share of a blend."""


VIEWS_STAGE = 0
"""For which views that take turns are drawn, in whatever stage: what is computed of one serves all."""

_FAR = np.uint64(2**32)
"""Along an example's stream: there shift, contrast and shares are drawn. They came later, and what was drawn
before is drawn as it was."""

_QUANTILES = 1024

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def draw(
    index: NDArray[np.int64], seed: int, stage: int, epoch: int, count: int = DRAWS
) -> NDArray[np.float32]:
    """Draw what decides about examples in an epoch: the same for an example in whatever batch it comes.

    A counter-based generator: splitmix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
    Generators", OOPSLA 2014) of the key and the example's number.

    Args:
        index: Numbers of the examples ``(b,)``.
        seed: Of the recipe.
        stage: Number of the stage, from 0.
        epoch: Number of the epoch, from 1.
        count: Numbers drawn per example. Those that follow augmentation's own decide about dropout.

    Returns:
        float32, uniform in [0, 1), shape ``(b, count)``.

    Example:
        >>> draw(np.array([7, 8]), seed=1, stage=0, epoch=1).shape
        (2, 7)
    """
    key = np.random.SeedSequence((seed, stage, epoch)).generate_state(1, np.uint64)
    streams = _mix(index.astype(np.uint64) ^ key)[:, np.newaxis]
    steps = np.arange(1, count + 1, dtype=np.uint64)
    steps[3:DRAWS] += _FAR
    steps[DRAWS:] -= np.uint64(DRAWS - 3)
    bits = _mix(streams + steps * _GOLDEN) >> np.uint64(40)  # a float32 has 24 bits
    return bits.astype(np.float32) / np.float32(2**24)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64; products wrap around, as they should."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def augment(images: tf.Tensor, draws: tf.Tensor, options: Augmentation) -> tf.Tensor:
    """Change contrast, then flip, rotate, zoom and shift; what comes from outside is black.

    Args:
        images: float32 ``(b, h, w, c)``, in [0, 255].
        draws: float32 in [0, 1) ``(b, DRAWS)``, from :func:`draw`.
        options: How far an image may change.

    Returns:
        float32 of the same shape, in [0, 255], bilinearly interpolated.
    """
    import tensorflow as tf

    if options.contrast:
        factors = 1 + (2 * draws[:, 5] - 1) * options.contrast
        mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
        images = tf.clip_by_value(mean + factors[:, None, None, None] * (images - mean), 0.0, 255.0)
    if not options.moves:
        return images
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_transforms(draws, options, tf.cast(height, tf.float32), tf.cast(width, tf.float32)),
        output_shape=tf.stack([height, width]),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


def mixed(values: tf.Tensor, draws: tf.Tensor, alpha: float) -> tf.Tensor:
    """Blend each example with the one as far from the other end of the batch, and so a random one.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. Shares follow Beta(alpha, alpha);
    an example has the larger one of its blend, so every example leads one.

    Args:
        values: float32 ``(b, …)``: images, or what is to be said of them.
        draws: float32 in [0, 1) ``(b, DRAWS)``, from :func:`draw`.
        alpha: Larger than 0; towards 0 examples are left as they are.

    Returns:
        float32 of the same shape.

    Example:
        >>> mixed(tf.eye(2), draws, alpha=0.4)  # rows that sum to 1  # doctest: +SKIP
    """
    import tensorflow as tf
    from scipy.special import betaincinv

    quantiles = betaincinv(alpha, alpha, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    larger = tf.constant(np.maximum(quantiles, 1 - quantiles), tf.float32)
    share = tf.gather(larger, tf.cast(draws[:, 6] * _QUANTILES, tf.int32))
    share = tf.reshape(share, [-1, *[1] * (len(values.shape) - 1)])
    return share * values + (1 - share) * tf.reverse(values, [0])


def _transforms(draws: tf.Tensor, options: Augmentation, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Maps from output to input pixels, ``(b, 8)``: ``x' = a x + b y + c``, ``y' = d x + e y + f``."""
    import tensorflow as tf

    def around_zero(place: int) -> tf.Tensor:
        return 2 * draws[:, place] - 1

    mirror = tf.where(draws[:, 0] < 0.5, -1.0, 1.0) if options.flip else tf.ones_like(draws[:, 0])
    angle = around_zero(1) * (options.rotation_degrees * np.pi / 180)
    scale = 1 / (1 + around_zero(2) * options.zoom)
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    a, b, d, e = mirror * cosine, -mirror * sine, sine, cosine
    x, y = (width - 1) / 2, (height - 1) / 2
    c = x - a * x - b * y - around_zero(3) * options.shift * width
    f = y - d * x - e * y - around_zero(4) * options.shift * height
    zero = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, zero, zero], axis=1)
