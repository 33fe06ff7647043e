"""One step of training and one of evaluation, compiled; what a strategy runs on every replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from brain_mri.models.augmentation import DRAWS, augment

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from brain_mri.models.recipe import Recipe
    from brain_mri.models.shards import Shards

EVALUATION_BATCH = 64

Step = Callable[..., tuple[Any, Any]]
"""From a batch to the sum of its losses and the number of right answers, both scalar tensors."""


class Measured(NamedTuple):
    """Mean loss and share of right answers over a pass."""

    loss: float
    accuracy: float


def make_train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, recipe: Recipe, weights: Sequence[float]
) -> Step:
    """Compile one optimizer step on a batch.

    Args:
        model: With the layers of the stage unfrozen already: variables are taken from it now.
        optimizer: Fresh, for these variables.
        recipe: Names augmentation and label smoothing.
        weights: Per class; all 1 where the recipe wants no class weights.

    Returns:
        ``step(pixels uint8 (b, h, w, 1), labels int64 (b,), draws float32 (b, 3))`` → (sum of losses, right
        answers).
    """
    import keras
    import tensorflow as tf

    variables = model.trainable_variables
    optimizer.build(variables)
    values = [variable.value for variable in variables]
    class_weight = tf.constant(weights if recipe.class_weights else [1.0] * len(recipe.classes), tf.float32)

    def step(pixels: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = augment(tf.cast(pixels, tf.float32), draws, recipe.augmentation)
        truth = tf.one_hot(labels, len(recipe.classes))
        # Watching the trained variables alone keeps a frozen base out of the tape.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            probabilities = model(images, training=True)
            losses = keras.losses.categorical_crossentropy(
                truth, probabilities, label_smoothing=recipe.label_smoothing
            )
            losses *= tf.gather(class_weight, labels)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, values), variables)
        return tf.reduce_sum(losses), _count_right(probabilities, labels)

    signature = [*_batch_signature(recipe), tf.TensorSpec((None, DRAWS), tf.float32)]
    compiled: Step = tf.function(step, input_signature=signature)
    return compiled


def make_evaluation_step(model: keras.Model, recipe: Recipe) -> Step:
    """Compile the measurement of a batch: plain cross-entropy, without class weights or smoothing.

    Returns:
        ``step(pixels uint8 (b, h, w, 1), labels int64 (b,))`` → (sum of losses, right answers).
    """
    import keras
    import tensorflow as tf

    def step(pixels: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        probabilities = model(tf.cast(pixels, tf.float32), training=False)
        losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
        return tf.reduce_sum(losses), _count_right(probabilities, labels)

    compiled: Step = tf.function(step, input_signature=_batch_signature(recipe))
    return compiled


def evaluate(step: Step, shards: Shards) -> Measured:
    """Measure a network on every image of a set.

    Args:
        step: From :func:`make_evaluation_step`.
        shards: Labelled images.
    """
    images, loss_sum, right = 0, 0.0, 0
    for pixels, labels, _ in shards.tensorflow(EVALUATION_BATCH):
        batch_loss, batch_right = step(pixels, labels)
        loss_sum += float(batch_loss)
        right += int(batch_right)
        images += len(labels)
    return Measured(loss_sum / images, right / images)


def _batch_signature(recipe: Recipe) -> list[Any]:
    """One signature for whole and last batches: no second tracing."""
    import tensorflow as tf

    size = recipe.image_size
    return [tf.TensorSpec((None, size, size, 1), tf.uint8), tf.TensorSpec((None,), tf.int64)]


def _count_right(probabilities: Any, labels: Any) -> Any:
    import tensorflow as tf

    answers = tf.argmax(probabilities, axis=1, output_type=tf.int64)
    return tf.reduce_sum(tf.cast(answers == labels, tf.int64))
