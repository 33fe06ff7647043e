from __future__ import annotations

import cv2
import numpy as np
import pytest

from brain_mri.imaging.corruptions import CORRUPTIONS, corrupt, made_pictures
from tests.imaging.hostile import picture


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_first_level_changes_nothing_and_stronger_ones_ever_more(kind: str) -> None:
    grey = picture(224, 224)
    grey[60:120, 60:120] //= 2  # something to blur
    levels = CORRUPTIONS[kind].levels
    np.testing.assert_array_equal(corrupt(grey, kind, levels[0], seed=1), grey)
    changes = [np.abs(corrupt(grey, kind, level, seed=1).astype(int) - grey).mean() for level in levels[1:]]
    assert min(changes) > 0.05
    if kind != "brightness":  # darker and brighter by turns
        assert changes == sorted(changes)
    for level in levels:
        spoilt = corrupt(grey, kind, level, seed=1)
        assert (spoilt.dtype, spoilt.shape) == (np.uint8, grey.shape)
        np.testing.assert_array_equal(corrupt(grey, kind, level, seed=1), spoilt)


def test_levels_are_in_the_units_that_they_name() -> None:
    flat = np.full((200, 200), 100, np.uint8)
    assert corrupt(flat, "noise", 10, seed=1).std() == pytest.approx(10, rel=0.05)
    assert (corrupt(flat, "brightness", 1.3, seed=1) == 130).all()
    point = np.zeros((201, 201), np.uint8)
    point[100, 60] = 255
    rows, columns = np.nonzero(corrupt(point, "rotation", 90, seed=1))
    assert abs(columns.mean() - 100) < 1
    assert abs(abs(rows.mean() - 100) - 40) < 1
    point[:] = 0
    point[90:111, 90:111] = 255
    blurred = corrupt(point, "blur", 2, seed=1).astype(float)
    expected = cv2.GaussianBlur(point, (0, 0), 0.02 * 201)
    np.testing.assert_array_equal(blurred, expected)


def test_made_pictures_differ_and_follow_the_seed() -> None:
    again, others = made_pictures(12, 64, seed=3), made_pictures(12, 64, seed=4)
    made = made_pictures(12, 64, seed=3)
    assert list(made) == ["noise", "drawn"]
    for kind, pictures in made.items():
        assert (pictures.shape, pictures.dtype) == ((12, 64, 64), np.uint8)
        assert all(picture.std() > 1 for picture in pictures)
        np.testing.assert_array_equal(pictures, again[kind])
        assert (pictures != others[kind]).any(axis=(1, 2)).all()
