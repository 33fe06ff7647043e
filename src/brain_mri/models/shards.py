"""What training needs to know about a set of model inputs, wherever it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

Batch = tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.uint8]]
"""``scan_ids (b,)``, ``labels (b,)`` and ``pixels (b, height, width)``."""


class Shards(Protocol):
    """A picklable handle to a set of labelled grey images; `brain_mri.datasets.ShardSet` is one.

    Attributes:
        rows: Number of images.
        label_counts: Images per label (index in the class order).
        image_size: Height and width of every image in pixels.
        classes: Class keys in the order of the labels.
    """

    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def label_counts(self) -> Mapping[int, int]: ...  # noqa: D102
    @property
    def image_size(self) -> int: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield everything once, in stored order."""
        ...

    def tensorflow(self, batch_size: int, shuffle_seed: int | None = None) -> tf.data.Dataset:
        """Everything once, as batches ``(pixels uint8 (b, h, w, 1), label int64 (b,), index int64 (b,))``.

        The last batch holds what is left. `index` is the image's own number, the same in whatever order it
        comes; without `shuffle_seed` the order is the stored one.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayShards:
    """Model inputs that lie in memory: for notebooks, small experiments and tests.

    Attributes:
        pixels: uint8, shape ``(n, size, size)``.
        labels: int64, shape ``(n,)``.
        classes: Class keys in the order of the labels.

    Example:
        >>> shards = ArrayShards(np.zeros((3, 32, 32), np.uint8), np.array([0, 1, 1]), ("no", "yes"))
        >>> shards.rows, dict(shards.label_counts)
        (3, {0: 1, 1: 2})
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Number of images."""
        return len(self.labels)

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

    def tensorflow(self, batch_size: int, shuffle_seed: int | None = None) -> tf.data.Dataset:
        """Everything once, as batches of (pixels, label, index)."""
        import tensorflow as tf

        order = np.arange(self.rows, dtype=np.int64)
        if shuffle_seed is not None:
            np.random.default_rng(shuffle_seed).shuffle(order)
        examples = (self.pixels[order][..., None], self.labels[order].astype(np.int64), order)
        return tf.data.Dataset.from_tensor_slices(examples).batch(batch_size).prefetch(2)
