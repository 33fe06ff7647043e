from __future__ import annotations

import numpy as np
import pytest

from brain_mri.imaging.decode import RefusedImage
from brain_mri.imaging.fundus import enhance, field_diameter, field_of_view, grow_field
from brain_mri.imaging.fundus_phantom import draw_fundus


@pytest.mark.parametrize("size", [96, 300, 1000])
def test_the_field_of_view_is_the_bright_disc(size: int) -> None:
    phantom = draw_fundus(5, size=size)
    found = field_of_view(phantom.photograph)
    assert (found & phantom.field).sum() / (found | phantom.field).sum() > 0.97
    assert field_diameter(found) == pytest.approx(0.96 * size, rel=0.03)


def test_dark_lesions_and_noise_around_it_do_not_change_the_field() -> None:
    phantom = draw_fundus(5, size=300)
    photograph = phantom.photograph.copy()
    photograph[140:160, 140:160] = 0
    noise = np.random.default_rng(1).integers(0, 12, photograph.shape, dtype=np.uint8)
    photograph = np.where(phantom.field[..., np.newaxis], photograph, noise)
    found = field_of_view(photograph)
    assert found[140:160, 140:160].all()
    assert (found & phantom.field).sum() / (found | phantom.field).sum() > 0.97


def test_a_picture_that_is_bright_everywhere_is_all_field() -> None:
    assert field_of_view(np.full((80, 120, 3), 150, np.uint8)).all()


def test_a_picture_without_a_field_is_refused() -> None:
    photograph = np.zeros((200, 200, 3), np.uint8)
    photograph[:3, :3] = 255
    with pytest.raises(RefusedImage, match="no bright disc") as refusal:
        field_of_view(photograph)
    assert refusal.value.reason == "no_field_of_view"


def test_beyond_the_rim_the_picture_goes_on_as_it_is_inside() -> None:
    columns = np.tile(np.arange(200, dtype=np.float32), (200, 1))
    field = np.zeros((200, 200), bool)
    field[70:130, 70:130] = True
    grown = grow_field(np.where(field, columns, 0), field)
    inside = slice(72, 128)
    np.testing.assert_array_equal(grown[inside, inside], columns[inside, inside])
    assert grown[100, 132] == pytest.approx(127, abs=2)
    assert grown[100, 68] == pytest.approx(72, abs=2)
    assert grown[0, 0] == pytest.approx(columns[field].mean())


def test_enhancing_evens_the_contrast_and_leaves_the_surroundings_black() -> None:
    phantom = draw_fundus(6, size=256)
    dim = (phantom.photograph * np.linspace(0.3, 1, 256)[:, np.newaxis, np.newaxis]).astype(np.uint8)
    even = enhance(dim, phantom.field)
    assert even.dtype == np.uint8
    assert not even[~phantom.field].any()
    upper, lower = (slice(30, 100), slice(150, 220))

    def contrast(picture: np.ndarray, rows: slice) -> float:
        return float(picture[rows, 60:196].std())

    before = contrast(dim[..., 1], upper) / contrast(dim[..., 1], lower)
    assert before < 0.75
    assert contrast(even, upper) / contrast(even, lower) > before + 0.08
    assert contrast(even, upper) > 1.5 * contrast(dim[..., 1], upper)
