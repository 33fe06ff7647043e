from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


def test_features_of_a_picture_depend_neither_on_its_batch_nor_on_the_scanners_window() -> None:
    import keras

    from brain_mri.models.compact import build_compact

    inputs = keras.Input((64, 64, 1))
    model = keras.Model(inputs, build_compact(inputs))
    pictures = np.random.default_rng(0).random((4, 64, 64, 1), dtype=np.float32)
    together = np.asarray(model(pictures))
    assert together.shape == (4, 192)
    alone = np.asarray(model(pictures[:1]))
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)
    darker = np.asarray(model(0.5 * pictures + 0.25))
    np.testing.assert_allclose(darker, together, atol=0.02)
    assert np.abs(together[0] - together[1]).max() > 0.05


def test_it_is_as_small_as_it_says() -> None:
    import keras

    from brain_mri.models.compact import build_compact

    inputs = keras.Input((224, 224, 1))
    assert keras.Model(inputs, build_compact(inputs)).count_params() == 102_032
