"""What training needs to know about a set of model inputs, wherever it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from brain_mri.imaging.prepare import PrepareOptions

if TYPE_CHECKING:
    import tensorflow as tf

_DRAWN_AT_ONCE = 256

Batch = tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.uint8]]
"""``scan_ids (b,)``, ``labels (b,)`` and ``pixels (b, height, width)``."""


class Shards(Protocol):
    """A picklable handle to a set of labelled grey images; `brain_mri.datasets.ShardSet` is one.

    Attributes:
        rows: Number of images.
        label_counts: Images per label (index in the class order).
        image_size: Height and width of every image in pixels.
        classes: Class keys in the order of the labels.
        scan_ids: Of all images, in stored order.
        prepare_options: How a scan became an image of the set.
        preparation: The same for sets of which no two share a scan, as those of all splits of one run do not.
    """

    @property
    def preparation(self) -> str: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def label_counts(self) -> Mapping[int, int]: ...  # noqa: D102
    @property
    def image_size(self) -> int: ...  # noqa: D102
    @property
    def prepare_options(self) -> PrepareOptions: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def scan_ids(self) -> NDArray[np.str_]: ...  # noqa: D102

    def batches(self, batch_size: int, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Yield everything once, in stored order or shuffled."""
        ...

    def tensorflow(
        self, batch_size: int, shuffle_seed: int | None = None, rank: int = 0, workers: int = 1
    ) -> tf.data.Dataset:
        """A worker's share of everything, as batches of `pixels`, `label` and `index`.

        ``(pixels uint8 (b, h, w, 1), label int64 (b,), index int64 (b,))``. The batches of all workers with
        one number make up a batch of `batch_size`, the last one of what is left, and hold the same images
        however many workers there are. So every worker gets as many batches, and some may be empty. Without
        `shuffle_seed` the order is the stored one. `index` depends on the scan's content alone (60 bits of
        its id): it is the same in whatever order and set the scan comes, and is no row number.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayShards:
    """Labelled images that are arrays already: no storage is asked. Their place is their index.

    Attributes:
        pixels: uint8, shape ``(n, size, size)``.
        labels: int64, shape ``(n,)``.
        classes: Class keys in the order of the labels.
        preparation: The same for sets that belong together.
        ids: Scan ids, shape ``(n,)``; None for their places.

    Example:
        >>> shards = ArrayShards(np.zeros((3, 32, 32), np.uint8), np.array([0, 1, 1]), ("no", "yes"))
        >>> shards.rows, dict(shards.label_counts)
        (3, {0: 1, 1: 2})
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    preparation: str = ""
    ids: NDArray[np.str_] | None = None

    @classmethod
    def drawn(cls, shards: Shards, limit: int, seed: int) -> ArrayShards:
        """A set, or so many images of it, drawn by the seed."""
        parts: list[Batch] = []
        rows = 0
        for batch in shards.batches(_DRAWN_AT_ONCE, seed):
            parts.append(batch)
            rows += len(batch[1])
            if rows >= limit:
                break
        scan_ids, labels, pixels = (np.concatenate(column)[:limit] for column in zip(*parts, strict=True))
        return cls(pixels, labels, tuple(shards.classes), shards.preparation, scan_ids)

    @property
    def scan_ids(self) -> NDArray[np.str_]:
        """The ids, or the places."""
        return np.arange(self.rows).astype(str) if self.ids is None else self.ids

    def chosen(self, places: Sequence[int]) -> ArrayShards:
        """Some of the images, in this order; one may come several times."""
        own = np.asarray(places, dtype=np.int64)
        return ArrayShards(
            self.pixels[own], self.labels[own], self.classes, self.preparation, self.scan_ids[own]
        )

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

    def batches(self, batch_size: int, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Yield everything once, in order or shuffled."""
        order = np.arange(self.rows)
        if shuffle_seed is not None:
            np.random.default_rng(shuffle_seed).shuffle(order)
        for start in range(0, self.rows, batch_size):
            own = order[start : start + batch_size]
            yield self.scan_ids[own], self.labels[own], self.pixels[own]

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
