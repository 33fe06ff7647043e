"""What a synthetic slice promises: repeatable, plausible, not solved without looking at shapes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from brain_mri.imaging.inspect import difference_hash
from brain_mri.imaging.phantom import PHANTOM_CLASSES, draw_phantom


def lesion_share(label: str, seed: int) -> float:
    return float(draw_phantom(label, seed, size=128).lesion_mask.mean())


def test_one_seed_gives_one_picture() -> None:
    first, again, other = (draw_phantom("glioma", seed) for seed in (3, 3, 4))
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.lesion_mask, again.lesion_mask)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("label", PHANTOM_CLASSES)
def test_pixels_and_mask_have_the_size_asked_for(label: str) -> None:
    phantom = draw_phantom(label, seed=1, size=96)
    assert phantom.pixels.shape == phantom.lesion_mask.shape == (96, 96)
    assert (phantom.pixels.dtype, phantom.lesion_mask.dtype) == (np.dtype(np.uint8), np.dtype(bool))
    assert int(phantom.pixels.max()) - int(phantom.pixels.min()) > 100


def test_only_slices_with_a_tumour_have_a_lesion() -> None:
    assert all(lesion_share("notumor", seed) == 0 for seed in range(20))
    for label in ("glioma", "meningioma", "pituitary"):
        assert all(0.002 < lesion_share(label, seed) < 0.35 for seed in range(40)), label


def test_lesions_sit_where_they_do_in_patients() -> None:
    """An adenoma is small and near the midline; the others are larger and anywhere."""
    places: dict[str, list[float]] = {}
    for label in ("glioma", "meningioma", "pituitary"):
        for seed in range(60):
            columns = np.nonzero(draw_phantom(label, seed, size=128).lesion_mask)[1]
            places.setdefault(label, []).append(float(columns.mean()) / 128)
    assert np.std(places["pituitary"]) < 0.75 * min(np.std(places["glioma"]), np.std(places["meningioma"]))
    areas = {label: np.mean([lesion_share(label, seed) for seed in range(40)]) for label in places}
    assert areas["pituitary"] < 0.6 * areas["meningioma"] < areas["glioma"]


def test_a_meningioma_is_brighter_than_the_brain_around_it() -> None:
    brighter = 0
    for seed in range(30):
        phantom = draw_phantom("meningioma", seed)
        mask = phantom.lesion_mask.astype(np.uint8)
        around = (
            cv2.dilate(mask, np.ones((25, 25), np.uint8)) - cv2.dilate(mask, np.ones((5, 5), np.uint8))
        ) > 0
        brighter += phantom.pixels[phantom.lesion_mask].mean() > 1.2 * phantom.pixels[around].mean()
    assert brighter >= 27


def test_an_unknown_class_is_refused_with_the_nearest_match() -> None:
    with pytest.raises(ValueError, match=r"'gliome'.*Did you mean 'glioma'\?"):
        draw_phantom("gliome", seed=1)


def test_a_picture_too_small_to_show_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64 pixels, but size is 32"):
        draw_phantom("glioma", seed=1, size=32)


def test_different_slices_are_no_near_duplicates() -> None:
    """By the project's rule: dHash distance at most 2 and 64×64 correlation at least 0.98."""
    pictures = [draw_phantom(PHANTOM_CLASSES[seed % 4], seed, size=128).pixels for seed in range(160)]
    hashes = np.array([int(difference_hash(pixels), 16) for pixels in pictures], dtype=np.uint64)
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    small = np.stack([cv2.resize(p, (64, 64), interpolation=cv2.INTER_AREA).ravel() for p in pictures])
    alike = (np.corrcoef(small) >= 0.98) & (distance <= 2)
    assert alike.sum() == len(pictures)  # each with itself only


@pytest.mark.slow
def test_neither_raw_pixels_nor_brightness_solve_it() -> None:
    """Logistic regression: at most 0.75 on 32×32 pixels, at most 0.5 on a histogram (measured 0.4 to 0.5)."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 900)
    pictures = [draw_phantom(PHANTOM_CLASSES[label], seed).pixels for seed, label in enumerate(labels)]
    small = np.stack([cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA).ravel() for p in pictures])
    histograms = np.stack([np.histogram(p, bins=32, range=(0, 256))[0] for p in pictures])
    assert linear_accuracy(small, labels) <= 0.75
    assert linear_accuracy(histograms, labels) <= 0.5


def linear_accuracy(features: NDArray[np.generic], labels: NDArray[np.int64]) -> float:
    """Return the best accuracy on the last third over three strengths of regularisation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    cut = len(labels) * 2 // 3
    accuracies = []
    for strength in (0.001, 0.01, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        model.fit(features[:cut], labels[:cut])
        accuracies.append(float(model.score(features[cut:], labels[cut:])))
    return max(accuracies)
