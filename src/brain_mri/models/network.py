"""The classifier as one Keras model: grey image in, class probabilities out.

    grey (b, h, w, 1) in [0, 255] → [replication] → scaling → backbone → average pooling → head → softmax

Replication and scaling are standard Keras layers inside the model, so a saved file is all that serving needs.
The backbone stays one nested layer, named as in the recipe: its last layers can be counted, cut or unfrozen
without looking at the rest.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from brain_mri.models.backbones import build_backbone, find_backbone

if TYPE_CHECKING:
    import keras

    from brain_mri.models.recipe import Recipe, Stage

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
"""Mean of ImageNet's channels, as `keras.applications.resnet50.preprocess_input` subtracts it."""


def build_network(recipe: Recipe, *, synchronized: bool = False) -> keras.Model:
    """Build the classifier of a recipe, with its weights.

    Args:
        recipe: Names backbone, weights, image size, classes, head and seed.
        synchronized: Whether batch normalisation of the head uses the statistics of all workers' shares.

    Returns:
        A Keras model from grey values in [0, 255], uint8 or float32 ``(b, size, size, 1)``, to probabilities
        float32 ``(b, classes)``. The same recipe gives the same initial weights.

    Raises:
        WeightsError: The weights cannot be had or do not fit.

    Example:
        >>> build_network(recipe).count_params()  # doctest: +SKIP
        24146692
    """
    import keras

    with _seeded(recipe.seed), _computing_in(recipe.precision):
        inputs = keras.Input((recipe.image_size, recipe.image_size, 1), name="grey")
        backbone = build_backbone(recipe.backbone, recipe.weights, recipe.image_size)
        features = backbone(_prepare(inputs, recipe.backbone))
        x = features
        if len(features.shape) == 4:
            x = keras.layers.GlobalAveragePooling2D(name="pool")(features)
        if recipe.pooled_dropout:
            x = keras.layers.Dropout(recipe.pooled_dropout, name="pooled_dropout")(x)
        for number, block in enumerate(recipe.head, start=1):
            x = keras.layers.Dense(block.units, activation="relu", name=f"head_dense_{number}")(x)
            if block.batch_norm:
                normalise = keras.layers.BatchNormalization(
                    synchronized=synchronized, name=f"head_batch_norm_{number}"
                )
                x = normalise(x)
            if block.dropout:
                x = keras.layers.Dropout(block.dropout, name=f"head_dropout_{number}")(x)
        outputs = keras.layers.Dense(
            len(recipe.classes), activation="softmax", dtype="float32", name="probabilities"
        )(x)
        return keras.Model(inputs, outputs, name=f"brain_mri_{recipe.backbone}")


def set_trained_layers(model: keras.Model, recipe: Recipe, stage: Stage) -> None:
    """Freeze and unfreeze the backbone as a stage wants it; the head is always trained.

    Args:
        model: From :func:`build_network`.
        recipe: That it was built from.
        stage: Says how many of the last layers are trained. Batch normalisation among them stays frozen, and
            a frozen one runs in inference mode whatever the call says: the statistics of a few hundred scans
            would destroy what pretrained weights expect.

    Raises:
        ValueError: More layers than the backbone has.
    """
    import keras

    backbone = model.get_layer(recipe.backbone)
    layers = backbone.layers
    count = len(layers) if stage.unfrozen_layers == "all" else stage.unfrozen_layers
    if count > len(layers):
        raise ValueError(
            f"Stage {stage.name!r} unfreezes {count} layers, but {recipe.backbone} has {len(layers)}."
        )
    backbone.trainable = count > 0
    for position, layer in enumerate(layers):
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = position >= len(layers) - count and not is_batch_norm


def _prepare(inputs: keras.KerasTensor, backbone_name: str) -> keras.KerasTensor:
    """Scale grey values to the backbone's own range and replicate them to its channels.

    Keras flips RGB to BGR for "caffe"; with three equal channels that changes nothing.
    """
    import keras

    backbone = find_backbone(backbone_name)
    scale, offset = {
        "unit": (1 / 255, 0.0),
        "symmetric": (1 / 127.5, -1.0),
        "caffe": (1.0, [-mean for mean in CAFFE_MEAN_BGR]),
    }[backbone.scaling]
    x = inputs
    if backbone.channels > 1:
        x = keras.layers.Concatenate(dtype="float32", name="replicate")([x] * backbone.channels)
    return keras.layers.Rescaling(scale, offset=offset, dtype="float32", name="scale")(x)


def in_float32(model: keras.Model, recipe: Recipe) -> keras.Model:
    """A network that computes in float32 whatever it was trained in, with the same weights."""
    if recipe.precision == "float32":
        return model
    plain = build_network(recipe.model_copy(update={"precision": "float32", "weights": None}))
    plain.set_weights(model.get_weights())
    return plain


@contextmanager
def _computing_in(precision: str) -> Iterator[None]:
    """Let layers that name no precision compute in this one; networks of Keras name none."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let Keras draw initial weights and dropout from a seed, and leave Python's random state as it was.

    Keras takes the seeds that nobody named from Python's `random`; `keras.utils.set_random_seed` would change
    NumPy's and TensorFlow's global state as well, for everybody else in the process.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
