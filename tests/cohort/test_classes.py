from __future__ import annotations

import pickle

import pytest

from brain_mri.cohort.classes import DEFAULT_CLASSES, ClassSet


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("glioma", "glioma"),
        ("Glioma_Tumor", "glioma"),
        ("MENINGIOMA tumour", "meningioma"),
        ("notumor", "notumor"),
        ("no_tumor", "notumor"),
        ("No-Tumour", "notumor"),
        ("Healthy", "notumor"),
        (" normal ", "notumor"),
        ("pituitary_tumor", "pituitary"),
        ("Training", None),
        ("", None),
    ],
)
def test_usual_folder_names_resolve(folder: str, name: str | None) -> None:
    assert DEFAULT_CLASSES.resolve(folder) == name


def test_order_and_display_names_are_fixed() -> None:
    assert [DEFAULT_CLASSES.index(name) for name in ("glioma", "meningioma", "notumor", "pituitary")] == [
        0,
        1,
        2,
        3,
    ]
    shown = [DEFAULT_CLASSES.display(name) for name in DEFAULT_CLASSES.names]
    assert shown == ["Glioma", "Meningioma", "No tumour", "Pituitary"]


def test_own_classes_keep_their_order_and_aliases() -> None:
    classes = ClassSet.from_entries(["normal", {"brain_tumour": ["yes", "tumor"]}])
    assert classes.names == ("normal", "brain_tumour")
    assert [classes.resolve(name) for name in ("Normal", "YES", "Tumor", "glioma")] == [
        "normal",
        "brain_tumour",
        "brain_tumour",
        None,
    ]
    assert classes.display("brain_tumour") == "Brain tumour"


def test_own_class_name_goes_before_a_known_alias() -> None:
    classes = ClassSet(("healthy", "notumor"))
    assert classes.resolve("healthy") == "healthy"
    assert classes.resolve("normal") == "notumor"


def test_mistyped_name_is_answered_with_the_nearest() -> None:
    assert DEFAULT_CLASSES.nearest("menigioma") == "meningioma"
    assert DEFAULT_CLASSES.nearest("xyz") is None
    with pytest.raises(ValueError, match="Did you mean 'glioma'"):
        DEFAULT_CLASSES.index("gliooma")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["glioma"], "at least two"),
        (["a", "A"], "two classes"),
        (["a", "a"], "two classes"),
        (["a", {"b": ["_A"]}], "two classes"),
        (["a", " _"], "empty"),
        (["a", 3], "name or a mapping"),
    ],
)
def test_unusable_class_sets_are_refused(entries: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassSet.from_entries(entries)  # type: ignore[arg-type]  # wrong on purpose


def test_class_set_can_travel_to_another_process() -> None:
    classes = pickle.loads(pickle.dumps(DEFAULT_CLASSES))
    assert classes == DEFAULT_CLASSES
    assert classes.resolve("healthy") == "notumor"
