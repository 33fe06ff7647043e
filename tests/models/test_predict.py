from __future__ import annotations

import numpy as np
import pytest

from brain_mri.models.network import build_network
from brain_mri.models.predict import predict_shards
from brain_mri.models.recipe import Recipe
from brain_mri.models.shards import ArrayShards

pytestmark = pytest.mark.tensorflow


def test_answers_come_in_stored_order_whatever_the_batch(recipe: Recipe, validation: ArrayShards) -> None:
    model = build_network(recipe)
    predictions = predict_shards(model, validation, batch_size=7)
    assert predictions.scan_ids.tolist() == [str(number) for number in range(validation.rows)]
    np.testing.assert_array_equal(predictions.labels, validation.labels)
    expected = model(validation.pixels[..., None], training=False)
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)


def test_nothing_to_predict_is_an_error(recipe: Recipe, validation: ArrayShards) -> None:
    empty = ArrayShards(validation.pixels[:0], validation.labels[:0], validation.classes)
    with pytest.raises(ValueError, match="no images"):
        predict_shards(build_network(recipe), empty)
