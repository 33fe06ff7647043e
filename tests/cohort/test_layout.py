from __future__ import annotations

import random

import pandas as pd
import pytest

from brain_mri.cohort.classes import DEFAULT_CLASSES, ClassSet
from brain_mri.cohort.layout import SourceLayoutError, read_folder_layout, read_table_layout


def test_training_and_testing_halves() -> None:
    paths = [
        "Training/glioma/1.jpg",
        "Testing/glioma/1.jpg",
        "Training/no tumor/2.PNG",
        "Testing/notumor/3.jpg",
    ]
    layout = read_folder_layout(paths, DEFAULT_CLASSES)
    assert layout.files[["path", "label", "official_split"]].to_numpy().tolist() == [
        ["Testing/glioma/1.jpg", "glioma", "test"],
        ["Testing/notumor/3.jpg", "notumor", "test"],
        ["Training/glioma/1.jpg", "glioma", "train"],
        ["Training/no tumor/2.PNG", "notumor", "train"],
    ]
    assert layout.description == "class folders under Testing/ and Training/"
    assert layout.missing_classes == ("meningioma", "pituitary")


@pytest.mark.parametrize(
    ("path", "label", "split"),
    [
        ("glioma/a.jpg", "glioma", None),
        ("archive/data/TRAIN/Glioma_Tumor/a.jpg", "glioma", "train"),
        ("valid/x/pituitary/a.jpg", "pituitary", "validation"),
        ("glioma/patient 7/a b ü.jpg", "glioma", None),
        ("glioma/val/a.jpg", "glioma", "validation"),
        ("test/Training/glioma/a.jpg", "glioma", "train"),
        ("glioma/notes.txt", "glioma", None),
    ],
)
def test_class_and_split_come_from_folders_at_any_depth(path: str, label: str, split: str | None) -> None:
    files = read_folder_layout([path, "meningioma/b.jpg"], DEFAULT_CLASSES).files.set_index("path")
    assert (files.loc[path, "label"], files.loc[path, "official_split"]) == (label, split)


def test_marks_hidden_files_and_documents_are_left_out() -> None:
    scans = ["glioma/a.jpg", "notumor/b.jpg"]
    noise = [
        "PHANTOM.json",
        "README.txt",
        "labels/table.csv",
        "glioma/.DS_Store",
        "glioma/Thumbs.db",
        ".cache/c.jpg",
        "__MACOSX/glioma/._a.jpg",
    ]
    assert list(read_folder_layout(scans + noise, DEFAULT_CLASSES).files["path"]) == scans


def test_order_of_paths_does_not_matter() -> None:
    paths = [f"{name}/{number}.jpg" for name in DEFAULT_CLASSES.names for number in range(5)]
    shuffled = random.Random(3).sample(paths, len(paths))
    expected = read_folder_layout(paths, DEFAULT_CLASSES).files
    pd.testing.assert_frame_equal(read_folder_layout(shuffled, DEFAULT_CLASSES).files, expected)


@pytest.mark.parametrize(
    ("paths", "facts"),
    [
        ([], ["no scans", "Expected: glioma, meningioma, notumor, pituitary"]),
        (["README.md"], ["no scans"]),
        (["glioma/a.jpg"], ["one class only", "glioma (1 files)", "ingestion.source"]),
        (
            ["gliooma/a.jpg", "gliooma/b.jpg", "notumor/c.jpg"],
            ["gliooma/ with 2 images (did you mean glioma?)", "notumor (1 files)", "ingestion.classes"],
        ),
        (["glioma/a.jpg", "notumor/c.jpg", "d.dcm"], ["1 images beside the class folders"]),
        (["glioma/notumor/a.jpg", "glioma/b.jpg"], ["several classes: glioma, notumor"]),
    ],
)
def test_unreadable_layouts_say_what_was_found_and_expected(paths: list[str], facts: list[str]) -> None:
    with pytest.raises(SourceLayoutError) as error:
        read_folder_layout(paths, DEFAULT_CLASSES)
    assert [fact for fact in facts if fact not in str(error.value)] == []


def test_own_classes_name_other_folders() -> None:
    layout = read_folder_layout(["yes/a.jpg", "no/b.jpg"], ClassSet(("no", "yes")))
    assert sorted(layout.files["label"]) == ["no", "yes"]


def test_table_becomes_the_same_form_as_a_folder() -> None:
    table = pd.DataFrame(
        {
            "Path": ["b.jpg", "a.jpg", "c.jpg"],
            "LABEL": ["No tumour", "glioma", "Healthy"],
            "patient": [7, None, 8],
            "Split": ["Training", "test", None],
            "age": [50, 60, 70],
        }
    )
    layout = read_table_layout(table, DEFAULT_CLASSES)
    assert layout.files.to_numpy().tolist() == [
        ["a.jpg", "glioma", "test", None, None],
        ["b.jpg", "notumor", "train", "7", None],
        ["c.jpg", "notumor", None, "8", None],
    ]
    assert layout.description == "a table with the columns path, label, patient, split"


@pytest.mark.parametrize(
    ("columns", "facts"),
    [
        ({"file": ["a"], "class": ["glioma"]}, ["no column path and no label", "found: file, class"]),
        ({"path": ["a", "b"], "Path": ["a", "b"], "label": ["x", "y"]}, ["more than one column path"]),
        ({"path": ["a", "b"], "label": ["gliom", "notumor"]}, ["'gliom' in 1 rows (did you mean glioma?)"]),
        ({"path": ["a", "a"], "label": ["glioma", "notumor"]}, ["path a more than once"]),
        ({"path": ["a", None], "label": ["glioma", "notumor"]}, ["no path in row 2"]),
        ({"path": ["a", "b"], "label": ["glioma", " "]}, ["no label in row 2"]),
        ({"path": ["a", "b"], "label": ["glioma", "notumor"], "split": ["train", "tset"]}, ["split tset"]),
        ({"path": ["a", "b"], "label": ["glioma", "glioma"]}, ["one class only"]),
        ({"path": [], "label": []}, ["no scans"]),
    ],
)
def test_unusable_tables_say_what_is_wrong(columns: dict[str, list[object]], facts: list[str]) -> None:
    with pytest.raises(SourceLayoutError) as error:
        read_table_layout(pd.DataFrame(columns), DEFAULT_CLASSES)
    assert [fact for fact in facts if fact not in str(error.value)] == []
