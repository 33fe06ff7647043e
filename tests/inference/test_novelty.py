from __future__ import annotations

import numpy as np
import pytest

from brain_mri.inference import novelty
from brain_mri.inference.novelty import NEIGHBOUR, Reference, make_reference, novelty_threshold


def test_the_distance_is_that_to_the_kth_nearest_by_brute_force() -> None:
    generator = np.random.default_rng(1)
    known, asked = generator.normal(size=(50, 12)), generator.normal(size=(9, 12))
    unit = known / np.linalg.norm(known, axis=1, keepdims=True)
    pictures = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    distances = np.sort(np.linalg.norm(pictures[:, None] - unit[None], axis=2), axis=1)
    found = make_reference(known, seed=1).distances(asked)
    np.testing.assert_allclose(found, distances[:, NEIGHBOUR - 1], atol=2e-3)  # known ones are float16


def test_length_does_not_count_and_direction_does() -> None:
    reference = make_reference(np.tile([[3.0, 4.0]], (8, 1)), seed=1)
    np.testing.assert_allclose(
        reference.distances([[0.3, 0.4], [4, -3], [-3, -4]]), [0, np.sqrt(2), 2], atol=0.03
    )


def test_many_pictures_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    reference, asked = make_reference(generator.normal(size=(20, 4)), seed=1), generator.normal(size=(33, 4))
    whole = reference.distances(asked)
    monkeypatch.setattr(novelty, "_AT_ONCE", 100)
    np.testing.assert_allclose(reference.distances(asked), whole, rtol=1e-6)


def test_of_many_training_scans_a_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "LARGEST_REFERENCE", 10)
    features = np.random.default_rng(3).normal(size=(40, 4))
    first, again, other = (make_reference(features, seed).features for seed in (1, 1, 2))
    assert first.shape == (10, 4)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_reference_comes_back_from_its_bytes() -> None:
    reference = make_reference(np.random.default_rng(4).normal(size=(7, 5)), seed=1)
    assert reference.to_bytes() == reference.to_bytes()
    np.testing.assert_array_equal(Reference.from_bytes(reference.to_bytes()).features, reference.features)


def test_the_threshold_lets_all_but_the_share_pass() -> None:
    distances = np.random.default_rng(5).random(1000)
    threshold = novelty_threshold(distances, 0.01)
    assert (distances > threshold).sum() == 10
    assert novelty_threshold(distances, 0.0) == distances.max()


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        novelty_threshold([0.1], 1.0)
    with pytest.raises(ValueError, match="no validation scans"):
        novelty_threshold([], 0.1)
    with pytest.raises(ValueError, match="no training scans"):
        make_reference(np.empty((0, 3)), seed=1)
    with pytest.raises(ValueError, match="Expected 3 features a picture, got 2"):
        make_reference(np.eye(3), seed=1).distances(np.ones((1, 2)))
    with pytest.raises(ValueError, match="shape"):
        make_reference(np.ones(3), seed=1)
