from __future__ import annotations

import cv2
import numpy as np
import pytest

from brain_mri.imaging.ridges import Plane, line_response, line_strength, local_contrast, ridge_response


def line_at(degrees: float, *, half: bool = False) -> Plane:
    """A line of two pixels through the middle of 101×101, or half of it."""
    plane = np.zeros((101, 101), np.float32)
    direction = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    ends = [50 - 45 * direction * (not half), 50 + 45 * direction]
    first, last = (tuple(round(16 * value) for value in end) for end in ends)
    cv2.line(plane, first, last, 100.0, 2, cv2.LINE_AA, 4)
    return plane


@pytest.mark.parametrize("degrees", [0, 20, 45, 75, 90, 130])
@pytest.mark.parametrize("ends", [False, True])
def test_lines_of_any_direction_are_answered_to_alike(degrees: float, ends: bool) -> None:
    response = line_response(line_at(degrees), 2.4, 8, ends=ends, blur=0.5, growth=0.117)
    level = line_response(line_at(0), 2.4, 8, ends=ends, blur=0.5, growth=0.117)
    assert response[50, 50] == pytest.approx(level[50, 50], abs=0.5)  # of a logarithm that spans 11
    assert response[50, 50] > np.median(response) + 5


def test_a_spot_is_no_line() -> None:
    spot = np.zeros((101, 101), np.float32)
    cv2.circle(spot, (50, 50), 2, 100.0, -1)
    of_spot, of_line = (
        line_response(plane, 2.4, 8, ends=False, blur=0.5, growth=0.117)[50, 50]
        for plane in (spot, line_at(30))
    )
    assert of_spot < of_line - 0.5  # logarithms


def test_the_end_of_a_line_is_answered_to_where_half_lines_count() -> None:
    plane = line_at(30, half=True)
    whole, half = (
        line_response(plane, 2.4, 16, ends=ends, blur=0.5, growth=0.05)[50, 50] for ends in (False, True)
    )
    assert half > whole + 1


def test_matched_filters_answer_to_lines_of_their_width_and_not_to_slopes() -> None:
    plane = line_at(60)
    thin, thick = (ridge_response(plane, across, 7)[50, 50] for across in (1.5, 6.0))
    assert thin > 1.5 * thick
    slope = np.tile(np.arange(101, dtype=np.float32), (101, 1))
    assert abs(float(ridge_response(slope, 2, 7)[50, 50])) < 1e-2


def test_sums_in_bands_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = line_at(20) + np.random.default_rng(3).normal(size=(101, 101)).astype(np.float32)

    def answers(rows: int) -> list[Plane]:
        monkeypatch.setattr("brain_mri.imaging.ridges._BAND", rows)
        lines = [line_response(plane, 2.4, 8, ends=ends, blur=0.5, growth=0.117) for ends in (False, True)]
        return [*lines, ridge_response(plane, 1.5, 6), line_strength(plane, 9)]

    for whole, banded in zip(answers(10**6), answers(7), strict=True):
        np.testing.assert_array_equal(banded, whole)


def test_a_line_is_stronger_than_the_square_around_it() -> None:
    strength = line_strength(line_at(45), 15)
    assert strength[50, 50] > 50
    np.testing.assert_allclose(line_strength(np.full((60, 60), 9, np.float32), 15), 0, atol=1e-4)


def test_contrast_is_relative_to_the_surroundings() -> None:
    plane = line_at(0)
    weak, strong = local_contrast(plane, 12, floor=0.1), local_contrast(plane * 3, 12, floor=0.3)
    np.testing.assert_allclose(weak, strong, atol=0.15)
    np.testing.assert_allclose(local_contrast(np.full((50, 50), 7, np.float32), 12, floor=4), 0, atol=1e-5)
