from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.class_weight import compute_class_weight

from brain_mri.cohort.summary import class_counts, class_weights, image_properties, summarise_cohort

CLASSES = ["glioma", "notumor", "pituitary"]


@pytest.fixture
def manifest() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": ["glioma", "glioma", "notumor", "notumor", "glioma"],
            "split": ["train", "test", "train", "train", None],
            "status": ["accepted", "accepted", "accepted", "duplicate", "quarantined"],
            "reason": ["", "", "", "", "truncated"],
            "width": [512, 512, 225, 225, 0],
            "height": [512, 512, 300, 300, 0],
            "mode": ["L", "RGB", "L", "L", ""],
            "format": ["JPEG", "JPEG", "PNG", "PNG", ""],
            "bit_depth": np.array([8, 8, 16, 16, 0]),
            "mean_intensity": [0.0, 255.0, 100.0, 100.0, 0.0],
        }
    )


def test_summary_is_plain_json_over_accepted_rows(manifest: pd.DataFrame) -> None:
    summary = summarise_cohort(manifest, CLASSES)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["status"] == {"accepted": 3, "duplicate": 1, "quarantined": 1}
    assert summary["reason"] == {"truncated": 1}
    assert summary["size"] == {"512×512": 2, "225×300": 1}
    assert summary["mode"] == {"L": 2, "RGB": 1}
    assert summary["bit_depth"] == {"8": 2, "16": 1}
    assert summary["class_counts"]["train"] == {"glioma": 1, "notumor": 1, "pituitary": 0}
    assert summary["class_weights"] == {"glioma": 1.0, "notumor": 1.0, "pituitary": 0.0}
    brightness = summary["brightness"]
    assert {name: sum(counts) for name, counts in brightness["counts"].items()} == {
        "glioma": 2,
        "notumor": 1,
        "pituitary": 0,
    }
    assert brightness["counts"]["glioma"][0] == brightness["counts"]["glioma"][-1] == 1
    assert brightness["mean"] == {"glioma": 127.5, "notumor": 100.0, "pituitary": None}


def test_rows_without_split_count_in_the_total_only() -> None:
    counts = class_counts(["a", "a", "b"], ["train", "", None], ["a", "b"])
    assert counts["train"] == {"a": 1, "b": 0}
    assert counts["all"] == {"a": 2, "b": 1}


def test_class_weights_are_those_of_scikit_learn() -> None:
    labels = ["glioma"] * 7 + ["notumor"] * 2 + ["pituitary"] * 5
    expected = compute_class_weight("balanced", classes=np.array(CLASSES), y=np.array(labels))
    assert list(class_weights(labels, CLASSES).values()) == pytest.approx(expected)


def test_rare_sizes_are_counted_together() -> None:
    widths = list(range(100, 120)) + [512] * 5
    table = pd.DataFrame(
        {"width": widths, "height": 10, "mode": "L", "format": "PNG", "bit_depth": 8}, index=range(25)
    )
    sizes = image_properties(table)["size"]
    assert sizes["512×10"] == 5
    assert sizes["other"] == 9
    assert sum(sizes.values()) == 25
