from __future__ import annotations

import numpy as np
import pytest

from brain_mri.imaging.overlay import overlay_heat


def test_the_scan_is_untouched_where_there_is_no_heat_and_shines_through_where_there_is() -> None:
    grey = np.array([[10, 200], [10, 200]], np.uint8)
    heat = np.array([[0, 0], [1, 1]], np.float32)
    mixed = overlay_heat(grey, heat)
    assert mixed[0].tolist() == [[10] * 3, [200] * 3]
    dark, bright = mixed[1].astype(int)
    assert dark[0] > dark[2]  # yellow
    np.testing.assert_allclose(bright - dark, 0.35 * 190, atol=1)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        overlay_heat(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.float32))
