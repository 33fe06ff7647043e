"""The network as an ONNX graph, which answers without TensorFlow; checked against Keras before it leaves."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brain_mri.inference.engine import open_engine
from brain_mri.models.cut import head_tensors

if TYPE_CHECKING:
    import keras

    from brain_mri.models.recipe import Recipe

LARGEST_DIFFERENCE = 1e-4
"""Between a probability of the graph and of the network: float32 sums in another order stay far below."""


class ExportError(RuntimeError):
    """The exported graph does not answer as the network does."""


class ExportedGraph(NamedTuple):
    """An ONNX graph and how far its answers were from the network's.

    Attributes:
        content: Bytes of the ``.onnx`` file: grey values float32 ``(b, h, w, 1)`` in [0, 255] go in,
            probabilities float32 ``(b, classes)`` and what enters the head ``(b, features)`` come out.
        difference: Largest absolute difference of a probability on the images it was checked with.
    """

    content: bytes
    difference: float


def export_onnx(model: keras.Model, recipe: Recipe, images: NDArray[np.uint8]) -> ExportedGraph:
    """Export a network through tf2onnx and compare both on real images.

    Args:
        model: The classifier.
        recipe: That it was built from.
        images: uint8 ``(n, h, w, 1)``, at least one, like those it was trained on.

    Raises:
        ExportError: The largest difference is above ``LARGEST_DIFFERENCE``.

    Example:
        >>> export_onnx(model, recipe, images).difference < 1e-4  # doctest: +SKIP
        True
    """
    import keras

    pixels = images.astype(np.float32)
    both = keras.Model(model.input, [model.output, head_tensors(model, recipe)[1]], name=model.name)
    expected = np.asarray(both(pixels, training=False)[0])
    content = onnx_graph(both)
    answers, _ = open_engine(content)(pixels)
    return ExportedGraph(content, check_difference(answers, expected))


def check_difference(answers: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference between probabilities of a graph and of its network, both ``(n, classes)``.

    Raises:
        ExportError: It is above ``LARGEST_DIFFERENCE``.
    """
    difference = float(np.abs(answers - expected).max())
    if not difference <= LARGEST_DIFFERENCE:  # not a number is refused too
        raise ExportError(
            f"The ONNX graph differs from the network by {difference:.2g} in a probability on {len(answers)} "
            f"images; at most {LARGEST_DIFFERENCE:g} is accepted. "
            "Check the versions of tf2onnx and Keras against requirements.lock."
        )
    return difference


def onnx_graph(model: keras.Model) -> bytes:
    """The bytes of the ``.onnx`` file of a network that has been called before: Keras exports no other."""
    with tempfile.TemporaryDirectory() as folder, _quiet(), _prompt_collection():
        path = Path(folder) / "graph.onnx"
        model.export(path, format="onnx", verbose=False)
        return path.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep tf2onnx's and Keras' own chatter out of a user's log."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _prompt_collection() -> Iterator[None]:
    """Have reference cycles collected as they come.

    tf2onnx copies the graph with all weights for every optimization that it tries, and leaves the copies to
    the garbage collector, which counts objects and not bytes: 6.5 GiB of ResNet-50, 2 GiB with this.
    """
    thresholds = gc.get_threshold()
    try:
        gc.freeze()  # what is there already is not looked through again and again
        gc.collect()  # of which the collector takes note here
        gc.set_threshold(700, 1, 1)
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        gc.collect()
