from __future__ import annotations

import numpy as np
import pytest

from brain_mri.models.checkpoints import checkpoint_name, pack_weights, unpack_weights


def test_weights_come_back_in_their_order_and_as_they_were() -> None:
    random = np.random.default_rng(1)
    weights = [random.normal(size=(3, number)).astype(np.float32) for number in range(1, 13)]
    content = pack_weights(weights)
    for one, two in zip(weights, unpack_weights(content), strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
    assert pack_weights(weights) == content


@pytest.mark.parametrize(
    ("number", "stage", "name"),
    [(0, "frozen base", "1-frozen-base.weights.npz"), (1, "../Fine tuning!", "2-fine-tuning.weights.npz")],
)
def test_a_name_is_a_plain_file_name(number: int, stage: str, name: str) -> None:
    assert checkpoint_name(number, stage) == name
