from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from brain_mri.models.augmentation import DRAWS, augment, draw, mixed
from brain_mri.models.recipe import Augmentation


def drawn(*examples: list[float]) -> NDArray[np.float32]:
    """Numbers of some examples: those given, then such as change nothing."""
    return np.array([[*given, *[0.5] * (DRAWS - len(given))] for given in examples], np.float32)


def test_an_example_draws_the_same_in_any_batch() -> None:
    numbers = np.random.default_rng(0).integers(0, 2**60, 50)
    order = np.random.default_rng(1).permutation(50)
    whole = draw(numbers, seed=3, stage=0, epoch=2)
    np.testing.assert_array_equal(draw(numbers[order], seed=3, stage=0, epoch=2), whole[order])
    np.testing.assert_array_equal(draw(numbers[10:13], seed=3, stage=0, epoch=2), whole[10:13])


@pytest.mark.parametrize(("seed", "stage", "epoch"), [(4, 0, 1), (3, 1, 1), (3, 0, 2)])
def test_seed_stage_and_epoch_draw_anew(seed: int, stage: int, epoch: int) -> None:
    numbers = np.arange(1000)
    first, second = draw(numbers, 3, 0, 1)[:, 0], draw(numbers, seed, stage, epoch)[:, 0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_draws_are_uniform_and_independent() -> None:
    draws = draw(np.arange(20_000), seed=1, stage=0, epoch=1)
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        counts, _ = np.histogram(column, bins=10, range=(0, 1))
        assert abs(counts - 2000).max() < 200
    assert abs(np.corrcoef(draws.T) - np.eye(DRAWS)).max() < 0.03


@pytest.mark.tensorflow
def test_an_image_moves_the_same_way_in_any_batch() -> None:
    random = np.random.default_rng(0)
    images = random.random((6, 32, 32, 1), dtype=np.float32)
    draws = random.random((6, DRAWS), dtype=np.float32)
    whole = augment(images, draws, Augmentation()).numpy()
    alone = np.concatenate(
        [augment(images[i : i + 1], draws[i : i + 1], Augmentation()).numpy() for i in (4, 1)]
    )
    np.testing.assert_array_equal(alone, whole[[4, 1]])


@pytest.mark.tensorflow
def test_flip_mirrors_left_and_right() -> None:
    images = np.random.default_rng(0).random((2, 32, 32, 1), dtype=np.float32)
    draws = drawn([0.1, 0.5, 0.5], [0.9, 0.5, 0.5])
    moved = augment(images, draws, Augmentation(flip=True, rotation_degrees=0, zoom=0)).numpy()
    np.testing.assert_allclose(moved[0], images[0, :, ::-1], atol=1e-4)
    np.testing.assert_array_equal(moved[1], images[1])


@pytest.mark.tensorflow
def test_a_quarter_turn_is_about_the_centre() -> None:
    images = np.random.default_rng(0).random((1, 32, 32, 1), dtype=np.float32)
    draws = drawn([0.9, 1.0, 0.5])
    turned = augment(images, draws, Augmentation(flip=False, rotation_degrees=90, zoom=0)).numpy()
    np.testing.assert_allclose(turned[0, 1:-1, 1:-1], np.rot90(images[0])[1:-1, 1:-1], atol=1e-3)


@pytest.mark.tensorflow
def test_zoom_enlarges_and_shrinks_within_its_bounds() -> None:
    images = np.zeros((2, 64, 64, 1), np.float32)
    images[:, 16:48, 16:48] = 1.0
    draws = drawn([0.9, 0.5, 0.999], [0.9, 0.5, 0.0])
    zoomed = augment(images, draws, Augmentation(flip=False, rotation_degrees=0, zoom=0.25)).numpy()
    sides = np.sqrt(zoomed.sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(sides, [32 * 1.25, 32 * 0.75], atol=0.5)


@pytest.mark.tensorflow
def test_shift_moves_by_a_share_of_the_side_and_leaves_black_behind() -> None:
    images = np.random.default_rng(0).random((1, 32, 64, 1), dtype=np.float32)
    draws = drawn([0.9, 0.5, 0.5, 0.75, 0.25])  # half of the most to the right, half of the most up
    moved = augment(images, draws, Augmentation(flip=False, rotation_degrees=0, zoom=0, shift=0.25)).numpy()
    np.testing.assert_allclose(moved[0, :28, 8:], images[0, 4:, :56], atol=1e-4)
    assert not moved[0, 28:].any()
    assert not moved[0, :, :8].any()


@pytest.mark.tensorflow
def test_contrast_stretches_grey_values_about_their_mean_within_their_range() -> None:
    images = np.array([100.0, 140.0, 20.0, 252.0], np.float32).reshape(1, 2, 2, 1)  # their mean is 128
    draws = drawn([0.9, 0.5, 0.5, 0.5, 0.5, 0.75], [0.9, 0.5, 0.5, 0.5, 0.5, 0.25])
    options = Augmentation(flip=False, rotation_degrees=0, zoom=0, contrast=0.5)
    changed = augment(np.repeat(images, 2, axis=0), draws, options).numpy().reshape(2, 4)
    np.testing.assert_allclose(changed[0], [93, 143, 0, 255], atol=1e-3)
    np.testing.assert_allclose(changed[1], [107, 137, 47, 221], atol=1e-3)


@pytest.mark.tensorflow
def test_nothing_moves_where_nothing_is_asked() -> None:
    images = np.random.default_rng(0).random((2, 32, 32, 1), dtype=np.float32)
    still = Augmentation(flip=False, rotation_degrees=0, zoom=0)
    assert augment(images, np.zeros((2, DRAWS), np.float32), still) is images


@pytest.mark.tensorflow
@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_shares_of_mixtures_follow_the_beta_distribution(alpha: float) -> None:
    from scipy.stats import beta, kstest

    draws = draw(np.arange(20_000), seed=1, stage=0, epoch=1)
    values = np.zeros((20_000, 1), np.float32)
    values[:10_000] = 1
    blended = mixed(values, draws, alpha).numpy()[:, 0]
    shares = np.concatenate([blended[:10_000], 1 - blended[10_000:]])  # of the example itself
    assert shares.min() >= 0.5
    folded = np.concatenate([shares, 1 - shares])
    assert kstest(folded, beta(alpha, alpha).cdf).statistic < 0.02


@pytest.mark.tensorflow
def test_images_and_labels_are_mixed_alike_with_the_one_from_the_other_end() -> None:
    images = np.random.default_rng(0).random((5, 4, 4, 1), dtype=np.float32)
    truth = np.eye(5, dtype=np.float32)
    draws = draw(np.arange(5), seed=1, stage=0, epoch=1)
    labels = mixed(truth, draws, 0.4).numpy()
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert (labels.argmax(axis=1) == np.arange(5)).all()
    assert ((labels + labels[:, ::-1] > 0) == (truth + truth[:, ::-1] > 0)).all()
    np.testing.assert_allclose(mixed(images, draws, 0.4), np.tensordot(labels, images, 1), rtol=1e-5)
