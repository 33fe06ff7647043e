from __future__ import annotations

import numpy as np
import pytest

from brain_mri.imaging.fundus_phantom import GRADES, draw_fundus


def test_a_seed_draws_the_same_retina_and_another_seed_another() -> None:
    one, same, other = (draw_fundus(seed, size=128) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.photograph, same.photograph)
    assert (one.photograph != other.photograph).any()


@pytest.mark.parametrize("seed", range(4))
def test_vessels_are_darker_in_green_than_what_is_beside_them(seed: int) -> None:
    phantom = draw_fundus(seed, size=256)
    green = phantom.photograph[..., 1].astype(float)
    beside = phantom.field & ~phantom.vessels
    assert 0.03 < phantom.vessels[phantom.field].mean() < 0.35
    assert green[phantom.vessels].mean() < green[beside].mean() - 20
    assert not (phantom.vessels & ~phantom.field).any()
    assert phantom.photograph[~phantom.field].max() < 5


def test_lesions_come_with_the_grade() -> None:
    none, mild, severe = (draw_fundus(7, size=256, grade=grade) for grade in GRADES)
    assert none.lesions == 0 < mild.lesions < severe.lesions


@pytest.mark.parametrize(("size", "grade"), [(20, "none"), (128, "moderate")])
def test_what_cannot_be_drawn_is_refused(size: int, grade: str) -> None:
    with pytest.raises(ValueError, match=f"size={size}, grade='{grade}'"):
        draw_fundus(1, size=size, grade=grade)
