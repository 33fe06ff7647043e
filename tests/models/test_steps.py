from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from brain_mri.models.steps import macro_f1


@pytest.mark.parametrize("classes", [2, 4])
def test_macro_f1_is_that_of_scikit_learn(classes: int) -> None:
    random = np.random.default_rng(classes)
    truth, taken = random.integers(0, classes, 60), random.integers(0, classes, 60)
    counts = confusion_matrix(truth, taken, labels=range(classes))
    assert macro_f1(counts) == pytest.approx(f1_score(truth, taken, average="macro"))


def test_a_class_without_images_does_not_count() -> None:
    assert macro_f1(np.array([[3, 0, 0], [0, 2, 0], [0, 0, 0]])) == 1
    assert macro_f1(np.array([[3, 0, 0], [0, 0, 2], [0, 0, 0]])) == 0.5
