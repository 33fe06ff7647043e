"""Model inputs in memory, for tests that need no storage: a `brain_mri.models.shards.Shards`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.models.shards import Batch

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, eq=False)
class ArrayShards:
    """Labelled images that are arrays already; their place is their index.

    Attributes:
        pixels: uint8, shape ``(n, size, size)``.
        labels: int64, shape ``(n,)``.
        classes: Class keys in the order of the labels.
        preparation: The same for sets that belong together.

    Example:
        >>> shards = ArrayShards(np.zeros((3, 32, 32), np.uint8), np.array([0, 1, 1]), ("no", "yes"))
        >>> shards.rows, dict(shards.label_counts)
        (3, {0: 1, 1: 2})
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    preparation: str = ""

    @property
    def rows(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def prepare_options(self) -> PrepareOptions:
        """As if nothing else was done to the images."""
        return PrepareOptions(self.image_size)

    @property
    def label_counts(self) -> dict[int, int]:
        """Images per label."""
        return {label: int((self.labels == label).sum()) for label in range(len(self.classes))}

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return int(self.pixels.shape[1])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield everything once, in order."""
        for start in range(0, self.rows, batch_size):
            stop = min(start + batch_size, self.rows)
            scan_ids = np.array([str(number) for number in range(start, stop)])
            yield scan_ids, self.labels[start:stop], self.pixels[start:stop]

    def tensorflow(
        self, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, workers: int = 1
    ) -> tf.data.Dataset:
        """A worker's share of everything, as batches of (pixels, label, index)."""
        import tensorflow as tf

        order = np.arange(self.rows, dtype=np.int64)
        if shuffle_seed is not None:
            np.random.default_rng(shuffle_seed).shuffle(order)
        size = self.image_size

        def generate() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]]:
            for start in range(0, self.rows, batch_size):
                own = order[start : start + batch_size][rank::workers]
                yield self.pixels[own][..., None], self.labels[own].astype(np.int64), own

        signature = (
            tf.TensorSpec((None, size, size, 1), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((None,), tf.int64),
        )
        return tf.data.Dataset.from_generator(generate, output_signature=signature)
