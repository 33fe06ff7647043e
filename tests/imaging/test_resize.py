from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brain_mri.imaging.resize import area_resize
from tests.imaging.hostile import picture


def exactly(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area means by definition: every pixel is cut into so many equal ones that no area divides one."""
    rows, columns = pixels.shape
    fine = np.repeat(np.repeat(pixels.astype(np.float64), height, axis=0), width, axis=1)
    return fine.reshape(height, rows, width, columns).mean(axis=(1, 3))


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_every_size_is_averaged_over_areas(rows: int, columns: int, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    pixels = np.random.default_rng(rows * columns).integers(0, 256, (rows, columns), dtype=np.uint8)
    result = area_resize(pixels, width, height)
    assert (result.shape, result.dtype) == ((height, width), np.uint8)
    assert result.flags.c_contiguous
    assert np.abs(result - exactly(pixels, width, height)).max() <= 0.51


@pytest.mark.parametrize("size", [(224, 224), (64, 64), (9, 8)])
@pytest.mark.parametrize("shape", [(512, 512), (512, 448), (225, 300), (630, 630), (600, 500)])
def test_results_are_those_of_opencv(shape: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = cv2.GaussianBlur(picture(shape[1], shape[0]), (5, 5), 0)
    expected = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    difference = np.abs(area_resize(pixels, *size).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02  # only where a mean lies between two levels


def test_what_is_not_shrunk_is_interpolated_as_opencv_does() -> None:
    pixels = picture(40, 100)
    expected = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(area_resize(pixels, 64, 64), expected)
