"""What training needs to know about a set of model inputs, wherever it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

    from brain_mri.imaging.prepare import PrepareOptions

Batch = tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.uint8]]
"""``scan_ids (b,)``, ``labels (b,)`` and ``pixels (b, height, width)``."""


class Shards(Protocol):
    """A picklable handle to a set of labelled grey images; `brain_mri.datasets.ShardSet` is one.

    Attributes:
        rows: Number of images.
        label_counts: Images per label (index in the class order).
        image_size: Height and width of every image in pixels.
        classes: Class keys in the order of the labels.
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

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield everything once, in stored order."""
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
