"""One step of training and one of evaluation, compiled; what a strategy runs on every replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brain_mri.models.augmentation import DRAWS, augment, mixed
from brain_mri.models.cut import head_tensors, restored, trained_part
from brain_mri.models.worker import ALONE, Worker

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from brain_mri.models.cut import Cut
    from brain_mri.models.recipe import Recipe
    from brain_mri.models.shards import Shards

EVALUATION_BATCH = 64

Step = Callable[..., tuple[Any, Any]]
"""From a batch to the sum of its losses and the number of right answers, both scalar tensors."""


class Measured(NamedTuple):
    """Mean loss and share of right answers over a pass.

    Where a pass only measures, `macro_f1` is the mean F1 of the classes that there are.

    Where updates come from workers that do not wait for each other, `staleness` is how many others came
    between the pull and the push of one, in the mean, and `seconds` what the pass took them: who measures may
    have been busy meanwhile.
    """

    loss: float
    accuracy: float
    staleness: float | None = None
    seconds: float | None = None
    macro_f1: float | None = None


class TrainingNetwork:
    """A network as training calls it: its dropout is drawn per example, and so the same in whatever batch.

    Keras' own dropout draws for a batch at once; which outputs an image loses would hang on its neighbours,
    on how many workers share a batch and on how often the network was called before.

    Attributes:
        draws: Numbers that an example needs: those of augmentation, then one for every output that may be
            dropped.
    """

    def __init__(
        self, model: keras.Model, recipe: Recipe, cut: Cut | None = None, dtype: str = "float32"
    ) -> None:
        """Take a network apart.

        Args:
            model: The whole network.
            recipe: That it was built from.
            cut: Where its frozen part ends, if what that computes is given instead of images.
            dtype: In which that is given.
        """
        import keras
        import tensorflow as tf

        self._cut, self._augmentation, self._mixup = cut, recipe.augmentation, recipe.mixup
        _, start = head_tensors(model, recipe)
        if cut is None:
            self._base = keras.Model(model.input, start)
            size = recipe.image_size
            self.signature: Any = tf.TensorSpec((None, size, size, 1), tf.uint8)
        else:
            self._base = trained_part(model, recipe, cut)
            self.signature = tuple(tf.TensorSpec((None, *tensor.shape), dtype) for tensor in cut.tensors)
        self._pieces: list[tuple[keras.Model | None, float]] = []
        self.draws = DRAWS
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                piece = None if layer.input is start else keras.Model(start, layer.input)
                self._pieces.append((piece, layer.rate))
                self.draws += layer.input.shape[-1]
                start = layer.output
        self._pieces.append((keras.Model(start, model.output), 0.0))

    def __call__(self, stored: Any, draws: tf.Tensor | None = None) -> tf.Tensor:
        """Probabilities float32 ``(b, classes)`` of a batch as it is stored.

        A worker whose share of a batch is empty takes the step all the same; TensorFlow's convolutions fail
        without an image, so they get a black one, of which nothing remains.

        Args:
            stored: Images uint8 ``(b, h, w, 1)``, or what crosses the cut.
            draws: ``(b, self.draws)``, to train; without them the network answers as it does later.
        """
        import tensorflow as tf

        training = draws is not None
        values, place = self._features(stored, draws), DRAWS
        for piece, rate in self._pieces:
            if piece is not None:
                values = piece(values, training=training)
            if rate and draws is not None:
                width = values.shape[-1]
                kept = draws[:, place : place + width] >= rate
                values = tf.where(kept, values / (1 - rate), tf.zeros_like(values))
                place += width
        return values

    def mixed(self, values: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Values ``(b, …)`` of a batch as its images are mixed in training; as they are where none is."""
        return mixed(values, draws, self._mixup) if self._mixup else values

    def _features(self, stored: Any, draws: tf.Tensor | None) -> tf.Tensor:
        import tensorflow as tf

        training = draws is not None
        if self._cut is None:
            inputs = [tf.cast(stored, tf.float32)]
            if draws is not None:
                inputs = [self.mixed(augment(inputs[0], draws, self._augmentation), draws)]
        else:
            inputs = [tf.cast(values, tf.float32) for values in stored]
        if self._base is None:
            return inputs[0]
        if self._cut is not None:
            inputs = [
                restored(values, tensor.stride, whole.shape[1])
                for values, tensor, whole in zip(inputs, self._cut.tensors, self._base.inputs, strict=True)
            ]
        count = tf.shape(inputs[0])[0]
        missing = tf.maximum(1 - count, 0)
        never_empty = [
            tf.pad(values, [[0, missing], *[[0, 0]] * (len(values.shape) - 1)]) for values in inputs
        ]
        given = never_empty if len(never_empty) > 1 else never_empty[0]
        return self._base(given, training=training)[:count]


def make_train_step(  # noqa: PLR0917 - what a step hangs on
    network: TrainingNetwork,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    weights: Sequence[float],
    worker: Worker = ALONE,
) -> Step:
    """Compile one optimizer step on a batch, or on a worker's share of one.

    Args:
        network: The model as training calls it.
        model: With the layers of the stage unfrozen already: variables are taken from it now.
        optimizer: Fresh, for these variables.
        recipe: Names label smoothing and class weights.
        weights: Per class; all 1 where the recipe wants no class weights.
        worker: Who takes the step. Gradients of all workers are added up.

    Returns:
        ``step(stored, labels int64 (b,), draws float32 (b, n), rows float32 ())`` → (sum of losses, right
        answers) of these images, as the network takes them with its `n` draws; `rows` is the number of images
        in the whole batch, that of all workers. There may be none here.
    """
    import keras
    import tensorflow as tf

    variables = model.trainable_variables
    optimizer.build(variables)
    values = [variable.value for variable in variables]
    class_weight = tf.constant(weights if recipe.class_weights else [1.0] * len(recipe.classes), tf.float32)

    def step(stored: Any, labels: tf.Tensor, draws: tf.Tensor, rows: tf.Tensor) -> tuple[Any, Any]:
        truth = network.mixed(tf.one_hot(labels, len(recipe.classes)), draws)
        # Watching the trained variables alone keeps a frozen base out of the tape.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            probabilities = network(stored, draws)
            losses = keras.losses.categorical_crossentropy(
                truth, probabilities, label_smoothing=recipe.label_smoothing
            )
            total = tf.reduce_sum(losses * tf.linalg.matvec(truth, class_weight))
            loss = total / rows
        optimizer.apply(tape.gradient(loss, values), variables)
        return total, _count_right(probabilities, labels)

    signature = [
        *_batch_signature(network),
        tf.TensorSpec((None, network.draws), tf.float32),
        tf.TensorSpec((), tf.float32),
    ]
    return worker.compile(step, signature)


def make_evaluation_step(network: TrainingNetwork, worker: Worker = ALONE) -> Step:
    """Compile the measurement of a batch: plain cross-entropy, without class weights or smoothing.

    Returns:
        ``step(stored, labels int64 (b,))`` → (sum of losses, how many of each class (row) were taken for
        which (column), int64 (classes, classes)).
    """
    import keras
    import tensorflow as tf

    def step(stored: Any, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        probabilities = network(stored)
        losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
        answers = tf.argmax(probabilities, axis=1, output_type=tf.int64)
        classes = probabilities.shape[-1]
        return tf.reduce_sum(losses), tf.math.confusion_matrix(labels, answers, classes, dtype=tf.int64)

    return worker.compile(step, _batch_signature(network))


def evaluate(step: Step, shards: Shards, worker: Worker = ALONE) -> Measured:
    """Measure a network on every image of a set; workers measure a share each, and all get the whole.

    Args:
        step: From :func:`make_evaluation_step`.
        shards: Labelled images.
        worker: Whose share is measured here.
    """
    batch = EVALUATION_BATCH * worker.count
    loss_sum, confusion = 0.0, np.zeros((len(shards.classes),) * 2, np.int64)
    for stored, labels, _ in shards.tensorflow(batch, rank=worker.rank, workers=worker.count):
        if len(labels):
            batch_loss, batch_confusion = step(stored, labels)
            loss_sum += float(batch_loss)
            confusion += batch_confusion.numpy()
    all_loss, *counts = worker.total(loss_sum, *confusion.ravel().tolist())
    whole = np.reshape(counts, confusion.shape)
    images = whole.sum()
    return Measured(all_loss / images, float(whole.trace() / images), macro_f1=macro_f1(whole))


def macro_f1(confusion: NDArray[Any]) -> float:
    """The mean F1 of the classes that there are, from counts ``(classes, classes)``, a row a true class."""
    there, taken = confusion.sum(axis=1), confusion.sum(axis=0)
    scores = 2 * confusion.diagonal() / np.maximum(there + taken, 1)
    return float(scores[there > 0].mean())


def measured(worker: Worker, loss_sum: float, right: int, images: int) -> Measured:
    """Mean loss and accuracy over what all workers saw together."""
    all_loss, all_right, all_images = worker.total(loss_sum, right, images)
    return Measured(all_loss / all_images, all_right / all_images)


def _batch_signature(network: TrainingNetwork) -> list[Any]:
    """One signature for whole and last batches: no second tracing."""
    import tensorflow as tf

    return [network.signature, tf.TensorSpec((None,), tf.int64)]


def _count_right(probabilities: Any, labels: Any) -> Any:
    import tensorflow as tf

    answers = tf.argmax(probabilities, axis=1, output_type=tf.int64)
    return tf.reduce_sum(tf.cast(answers == labels, tf.int64))
