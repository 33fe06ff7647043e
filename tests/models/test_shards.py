from __future__ import annotations

import numpy as np
import pytest

from brain_mri.models.shards import ArrayShards


def test_batches_hold_everything_once(train: ArrayShards) -> None:
    batches = list(train.batches(16))
    assert [len(labels) for _, labels, _ in batches] == [16, 16, 16, 10]
    np.testing.assert_array_equal(np.concatenate([pixels for _, _, pixels in batches]), train.pixels)
    assert train.label_counts == {0: 15, 1: 15, 2: 14, 3: 14}


@pytest.mark.tensorflow
def test_shuffling_moves_images_together_with_labels_and_numbers(train: ArrayShards) -> None:
    batches = list(train.tensorflow(16, shuffle_seed=1).as_numpy_iterator())
    index = np.concatenate([batch[2] for batch in batches])
    assert sorted(index) == list(range(train.rows))
    assert index.tolist() != sorted(index)
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in batches]), train.labels[index])
    np.testing.assert_array_equal(
        np.concatenate([batch[0] for batch in batches])[..., 0], train.pixels[index]
    )
