"""One step of training and one of evaluation, compiled; what a strategy runs on every replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from brain_mri.models.augmentation import DRAWS, augment
from brain_mri.models.worker import ALONE, Worker

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


class TrainingNetwork:
    """A network as training calls it: its dropout is drawn per example, and so the same in whatever batch.

    Keras' own dropout draws for a batch at once; which outputs an image loses would hang on its neighbours,
    on how many workers share a batch and on how often the network was called before.

    Attributes:
        draws: Numbers that an example needs: those of augmentation, then one for every output that may be
            dropped.
    """

    def __init__(self, model: keras.Model, recipe: Recipe) -> None:
        import keras

        names = [layer.name for layer in model.layers]
        start = model.layers[names.index(recipe.backbone) + 1].input
        self._base = keras.Model(model.input, start)
        self._pieces: list[tuple[keras.Model, float]] = []
        self.draws = DRAWS
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                self._pieces.append((keras.Model(start, layer.input), layer.rate))
                self.draws += layer.input.shape[-1]
                start = layer.output
        self._pieces.append((keras.Model(start, model.output), 0.0))

    def __call__(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Probabilities ``(b, classes)`` of images ``(b, h, w, 1)`` with draws ``(b, self.draws)``.

        A worker whose share of a batch is empty takes the step all the same; TensorFlow's convolutions fail
        without an image, so they get a black one, of which nothing remains.
        """
        import tensorflow as tf

        count = tf.shape(images)[0]
        never_empty = tf.pad(images, [[0, tf.maximum(1 - count, 0)], [0, 0], [0, 0], [0, 0]])
        values, place = self._base(never_empty, training=True)[:count], DRAWS
        for piece, rate in self._pieces:
            values = piece(values, training=True)
            if rate:
                width = values.shape[-1]
                kept = draws[:, place : place + width] >= rate
                values = tf.where(kept, values / (1 - rate), 0.0)
                place += width
        return values


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    weights: Sequence[float],
    worker: Worker = ALONE,
) -> tuple[Step, int]:
    """Compile one optimizer step on a batch, or on a worker's share of one.

    Args:
        model: With the layers of the stage unfrozen already: variables are taken from it now.
        optimizer: Fresh, for these variables.
        recipe: Names augmentation and label smoothing.
        weights: Per class; all 1 where the recipe wants no class weights.
        worker: Who takes the step. Gradients of all workers are added up.

    Returns:
        ``step(pixels uint8 (b, h, w, 1), labels int64 (b,), draws float32 (b, n), rows float32 ())`` → (sum
        of losses, right answers) of these images; `rows` is the number of images in the whole batch, that of
        all workers. There may be none here. And n, the numbers to draw per example.
    """
    import keras
    import tensorflow as tf

    variables = model.trainable_variables
    optimizer.build(variables)
    values = [variable.value for variable in variables]
    network = TrainingNetwork(model, recipe)
    class_weight = tf.constant(weights if recipe.class_weights else [1.0] * len(recipe.classes), tf.float32)

    def step(pixels: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, rows: tf.Tensor) -> tuple[Any, Any]:
        images = augment(tf.cast(pixels, tf.float32), draws, recipe.augmentation)
        truth = tf.one_hot(labels, len(recipe.classes))
        # Watching the trained variables alone keeps a frozen base out of the tape.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            probabilities = network(images, draws)
            losses = keras.losses.categorical_crossentropy(
                truth, probabilities, label_smoothing=recipe.label_smoothing
            )
            total = tf.reduce_sum(losses * tf.gather(class_weight, labels))
            loss = total / rows
        optimizer.apply(tape.gradient(loss, values), variables)
        return total, _count_right(probabilities, labels)

    signature = [
        *_batch_signature(recipe),
        tf.TensorSpec((None, network.draws), tf.float32),
        tf.TensorSpec((), tf.float32),
    ]
    return worker.compile(step, signature), network.draws


def make_evaluation_step(model: keras.Model, recipe: Recipe, worker: Worker = ALONE) -> Step:
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

    return worker.compile(step, _batch_signature(recipe))


def evaluate(step: Step, shards: Shards, worker: Worker = ALONE) -> Measured:
    """Measure a network on every image of a set; workers measure a share each, and all get the whole.

    Args:
        step: From :func:`make_evaluation_step`.
        shards: Labelled images.
        worker: Whose share is measured here.
    """
    batch = EVALUATION_BATCH * worker.count
    loss_sum, right, images = 0.0, 0, 0
    for pixels, labels, _ in shards.tensorflow(batch, rank=worker.rank, workers=worker.count):
        if len(labels):
            batch_loss, batch_right = step(pixels, labels)
            loss_sum += float(batch_loss)
            right += int(batch_right)
            images += len(labels)
    return measured(worker, loss_sum, right, images)


def measured(worker: Worker, loss_sum: float, right: int, images: int) -> Measured:
    """Mean loss and accuracy over what all workers saw together."""
    all_loss, all_right, all_images = worker.total(loss_sum, right, images)
    return Measured(all_loss / all_images, all_right / all_images)


def _batch_signature(recipe: Recipe) -> list[Any]:
    """One signature for whole and last batches: no second tracing."""
    import tensorflow as tf

    size = recipe.image_size
    return [tf.TensorSpec((None, size, size, 1), tf.uint8), tf.TensorSpec((None,), tf.int64)]


def _count_right(probabilities: Any, labels: Any) -> Any:
    import tensorflow as tf

    answers = tf.argmax(probabilities, axis=1, output_type=tf.int64)
    return tf.reduce_sum(tf.cast(answers == labels, tf.int64))
