from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from brain_mri.imaging.fundus import field_of_view
from brain_mri.imaging.fundus_phantom import FundusPhantom, draw_fundus
from brain_mri.imaging.vessels import (
    WORKING_DIAMETER,
    Layers,
    VesselOptions,
    clean_map,
    find_vessels,
    vessel_likeness,
)


@pytest.fixture(scope="module")
def phantom() -> FundusPhantom:
    return draw_fundus(11, size=360)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_drawn_vessels_are_found_where_they_are(phantom: FundusPhantom) -> None:
    field = field_of_view(phantom.photograph)
    found = {
        method: find_vessels(phantom.photograph, field, VesselOptions(method=method))
        for method in ("network", "threshold")
    }
    for each in found.values():
        assert each.dtype == np.uint8
        assert set(np.unique(each)) == {0, 255}
        assert not each[~field].any()
    assert dice(found["network"] > 0, phantom.vessels) > 0.7
    assert dice(found["threshold"] > 0, phantom.vessels) > 0.4
    mirrored = find_vessels(phantom.photograph[:, ::-1], field[:, ::-1], VesselOptions())[:, ::-1]
    assert dice(mirrored > 0, found["network"] > 0) > 0.95, "no direction is preferred"


def test_a_picture_of_any_size_is_looked_at_at_the_working_size(phantom: FundusPhantom) -> None:
    likeness, inside = vessel_likeness(phantom.photograph, phantom.field, VesselOptions(method="threshold"))
    assert likeness.shape == inside.shape
    assert abs(max(inside.shape) - WORKING_DIAMETER / 0.96) < 5
    assert likeness.min() >= 0
    assert likeness.max() <= 1
    assert not likeness[~inside].any()


def test_dark_surroundings_cost_nothing_and_change_little(
    phantom: FundusPhantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = np.pad(phantom.photograph, ((700, 300), (200, 900), (0, 0)))
    field = np.pad(phantom.field, ((700, 300), (200, 900)))
    looked_at: list[int] = []

    def likeness(photograph: np.ndarray, *arguments: Any) -> Any:
        looked_at.append(max(photograph.shape))
        return vessel_likeness(photograph, *arguments)

    monkeypatch.setattr("brain_mri.imaging.vessels.vessel_likeness", likeness)
    found = find_vessels(phantom.photograph, phantom.field, VesselOptions())
    of_wide = find_vessels(wide, field, VesselOptions())
    assert looked_at[0] == 360
    assert looked_at[1] < 1.2 * 360
    assert of_wide.shape == field.shape
    assert not of_wide[~field].any()
    assert dice(of_wide[700:-300, 200:-900] > 0, found > 0) > 0.9


def test_the_plain_chain_takes_its_own_equalisation(phantom: FundusPhantom) -> None:
    plain = VesselOptions(method="threshold")
    found = [find_vessels(phantom.photograph, phantom.field, plain, clip) for clip in (1.0, 2.0, 4.0)]
    assert (found[1] == find_vessels(phantom.photograph, phantom.field, plain)).all()
    assert (found[0] > 0).sum() < (found[1] > 0).sum() < (found[2] > 0).sum()
    coarse = find_vessels(phantom.photograph, phantom.field, replace(plain, opening=5))
    assert 0 < (coarse > 0).sum() < (found[1] > 0).sum()


def test_an_unlikely_piece_stays_where_it_holds_a_likely_pixel_and_is_large_enough() -> None:
    likeness = np.zeros((40, 40), np.float32)
    likeness[5, 2:38] = 0.5  # long, never likely
    likeness[15, 2:38], likeness[15, 20] = 0.5, 0.9  # long, and likely somewhere
    likeness[30, 2:8] = 0.9  # likely, and short
    found = clean_map(likeness, np.ones((40, 40), bool), VesselOptions(high=0.7, low=0.42, smallest=20))
    assert [row for row in range(40) if found[row].any()] == [15]
    assert found[15].sum() == 36


def test_a_look_is_a_network_of_one_hidden_layer() -> None:
    mean, scale = np.array([1, 2], np.float32), np.array([2, 4], np.float32)
    hidden = np.array([[1, -1], [0, 2]], np.float32)
    look = Layers(mean, scale, hidden, np.zeros(2, np.float32), np.ones(2, np.float32), np.float32(-1))
    (likeness,) = look(np.array([[3, 6]], np.float32))  # (1, 1) → (1, 1) → 2 − 1
    assert likeness == pytest.approx(1 / (1 + np.exp(-1)))
