"""What a source says about its files: class and official split, from folder names or from a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from brain_mri.cohort.classes import ClassSet, fold_name

COLUMNS = ("path", "label", "official_split", "patient", "study")

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# Only used to tell a misnamed class folder from one with documents.
_IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".jp2", ".pgm"),
    *(".dcm", ".dicom", ".nii", ".nii.gz"),
)
_MARKER_FILES = frozenset({"phantom.json", "thumbs.db", "desktop.ini"})
_MARKER_FOLDERS = frozenset({"__macosx"})
_SHOWN = 10  # examples in an error


class SourceLayoutError(ValueError):
    """A source whose folders or table cannot be read as labelled scans; the message says how to mend it."""


@dataclass(frozen=True, eq=False)
class SourceLayout:
    """The labelled files of a source.

    Attributes:
        files: A row per file, sorted by path, with the columns `path` (as given), `label` (class name),
            `official_split` ("train", "validation", "test" or None), `patient`, `study` (text or None).
        description: The layout in words, for instance "class folders under Testing/ and Training/".
        missing_classes: Expected classes without a file.
    """

    files: pd.DataFrame
    description: str
    missing_classes: tuple[str, ...]


def read_folder_layout(paths: Iterable[str], classes: ClassSet, fewest: int = 2) -> SourceLayout:
    """Work out class and official split of every file from the names of its folders.

    The class is named by a folder at any depth, the official split by a folder like `Training` or `test`, the
    innermost if there are several. Hidden files and the marks of file managers are left out, and so is what
    lies in no class folder and is no image (a README). Everything inside a class folder counts, image or not:
    inspection decides.

    Args:
        paths: Paths relative to the source, with `/` between folders.
        classes: The classes to look for.
        fewest: How many of them there must be; one will do where the files are added to others.

    Raises:
        SourceLayoutError: No files, images in a folder of no known class, a path that names two classes,
            or too few classes.

    Example:
        >>> from brain_mri.cohort.classes import DEFAULT_CLASSES
        >>> layout = read_folder_layout(["Training/glioma/1.jpg", "Training/no_tumor/2.jpg"], DEFAULT_CLASSES)
        >>> layout.description, list(layout.files["label"])
        ('class folders under Training/', ['glioma', 'notumor'])
    """
    rows: list[tuple[str, str, str | None, None, None]] = []
    unknown: Counter[str] = Counter()
    split_folders: set[str] = set()
    for path in sorted(paths):
        *folders, name = PurePosixPath(path).parts
        if is_no_scan(path):
            continue
        label = class_in_path(path, classes)
        if label is None:
            if name.lower().endswith(_IMAGE_SUFFIXES):
                unknown["/".join(folders) or "."] += 1
            continue
        split_folder = next(
            (folder for folder in reversed(folders) if fold_name(folder) in _SPLIT_NAMES), None
        )
        if split_folder is not None:
            split_folders.add(split_folder)
        rows.append((path, label, _SPLIT_NAMES.get(fold_name(split_folder or "")), None, None))
    if unknown:
        raise SourceLayoutError(_unknown_folders(unknown, Counter(row[1] for row in rows), classes))
    under = f" under {' and '.join(f'{name}/' for name in sorted(split_folders))}" if split_folders else ""
    return _layout(pd.DataFrame(rows, columns=list(COLUMNS)), f"class folders{under}", classes, fewest)


def read_table_layout(table: pd.DataFrame, classes: ClassSet, fewest: int = 2) -> SourceLayout:
    """Check a table of scans and bring it to the same form as a folder.

    Args:
        table: Columns `path` and `label`, and where known `patient`, `study`, `split`; the case of column
            names does not count, further columns are ignored.
        classes: The classes that labels stand for.
        fewest: How many of them there must be.

    Raises:
        SourceLayoutError: Missing or ambiguous columns, empty or duplicated paths, labels of no known class,
            splits that are none, no rows, or too few classes.
    """
    found = [str(column) for column in table.columns]
    columns = {fold_name(name): table.iloc[:, place] for place, name in reversed(list(enumerate(found)))}
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise SourceLayoutError(
            f"The table has no column {' and no '.join(missing)}; found: {', '.join(found) or 'none'}. "
            "Expected path, label and optionally patient, study, split."
        )
    wanted = ("path", "label", "patient", "study", "split")
    twice = [name for name, count in Counter(map(fold_name, found)).items() if count > 1 and name in wanted]
    if twice:
        raise SourceLayoutError(f"The table has more than one column {', '.join(twice)}. Rename all but one.")

    text = {name: [_text(value) for value in columns[name]] for name in wanted if name in columns}
    for name in ("path", "label"):
        empty = [row for row, value in enumerate(text[name], start=1) if value is None]
        if empty:
            raise SourceLayoutError(
                f"The table has no {name} in {_some('row', empty)}. Fill it in or drop the row."
            )
    repeated = [path for path, count in Counter(text["path"]).items() if count > 1]
    if repeated:
        raise SourceLayoutError(
            f"The table names {_some('path', repeated)} more than once. Keep one row for each."
        )
    none: list[str | None] = [None] * len(table)
    files = pd.DataFrame(
        {
            "path": text["path"],
            "label": _table_labels(text["label"], classes),
            "official_split": _table_splits(text.get("split", none)),
            "patient": text.get("patient", none),
            "study": text.get("study", none),
        },
        columns=list(COLUMNS),
        dtype=object,
    )
    description = f"a table with the columns {', '.join(name for name in wanted if name in columns)}"
    return _layout(files.sort_values("path", ignore_index=True), description, classes, fewest)


def is_no_scan(path: str) -> bool:
    """Whether a path is that of a hidden file, or of a mark that file managers leave.

    Example:
        >>> is_no_scan("glioma/.DS_Store"), is_no_scan("glioma/1.jpg")
        (True, False)
    """
    *folders, name = PurePosixPath(path).parts
    hidden = any(part.startswith(".") for part in (*folders, name))
    return hidden or name.lower() in _MARKER_FILES or any(part.lower() in _MARKER_FOLDERS for part in folders)


def class_in_path(path: str, classes: ClassSet) -> str | None:
    """The class that a folder of a path names, None where none does.

    Raises:
        SourceLayoutError: Its folders name several classes.

    Example:
        >>> from brain_mri.cohort.classes import DEFAULT_CLASSES
        >>> class_in_path("Training/no_tumor/2.jpg", DEFAULT_CLASSES)
        'notumor'
    """
    folders = PurePosixPath(path).parts[:-1]
    named = {label for folder in folders if (label := classes.resolve(folder)) is not None}
    if len(named) > 1:
        raise SourceLayoutError(
            f"The folders of {path!r} name several classes: {', '.join(sorted(named))}. Expected one class "
            "folder on the way to each file; rename or move the others."
        )
    return next(iter(named), None)


def _unknown_folders(unknown: Counter[str], labels: Counter[str], classes: ClassSet) -> str:
    lines = []
    for folder, images in sorted(unknown.items())[:_SHOWN]:
        if folder == ".":
            lines.append(f"{images} images beside the class folders, in the source itself")
        else:
            lines.append(f"{folder}/ with {images} images{_nearest(folder.rsplit('/', 1)[-1], classes)}")
    if len(unknown) > _SHOWN:
        lines.append(f"{len(unknown) - _SHOWN} more folders")
    return (
        f"Found images in folders of no known class: {'; '.join(lines)}. "
        f"{_found_and_expected(labels, classes)} Rename or remove the folder, or list your own classes in "
        "ingestion.classes, for instance [normal, tumour]."
    )


def _table_labels(labels: Iterable[str | None], classes: ClassSet) -> list[str]:
    given = [label or "" for label in labels]
    resolved = [classes.resolve(label) for label in given]
    unknown = Counter(label for label, name in zip(given, resolved, strict=True) if name is None)
    if unknown:
        lines = [
            f"{label!r} in {rows} rows{_nearest(label, classes)}"
            for label, rows in unknown.most_common(_SHOWN)
        ]
        known = Counter(name for name in resolved if name is not None)
        raise SourceLayoutError(
            f"The table has labels of no known class: {'; '.join(lines)}. "
            f"{_found_and_expected(known, classes)} Correct the labels, or list your own classes in "
            "ingestion.classes, for instance [normal, tumour]."
        )
    return [name for name in resolved if name is not None]


def _table_splits(splits: Iterable[str | None]) -> list[str | None]:
    given = list(splits)
    unknown = {split for split in given if split is not None and fold_name(split) not in _SPLIT_NAMES}
    if unknown:
        raise SourceLayoutError(
            f"The table has {_some('split', sorted(unknown))}. "
            f"Expected one of {', '.join(_SPLIT_NAMES)}, or nothing."
        )
    return [None if split is None else _SPLIT_NAMES[fold_name(split)] for split in given]


def _layout(files: pd.DataFrame, description: str, classes: ClassSet, fewest: int) -> SourceLayout:
    """The finished layout, once it holds enough classes."""
    labels = Counter(files["label"])
    if len(labels) < fewest:
        problem = "The source has scans of one class only." if labels else "The source has no scans."
        raise SourceLayoutError(
            f"{problem} {_found_and_expected(labels, classes)} A classifier needs at least two: point "
            "ingestion.source at the folder above the class folders, or list your own classes in "
            "ingestion.classes."
        )
    missing = tuple(name for name in classes.names if name not in labels)
    return SourceLayout(files=files, description=description, missing_classes=missing)


def _found_and_expected(labels: Mapping[str, int], classes: ClassSet) -> str:
    found = ", ".join(f"{name} ({labels[name]} files)" for name in classes.names if labels.get(name))
    return f"Found: {found or 'no class folder or label'}. Expected: {', '.join(classes.names)}."


def _nearest(name: str, classes: ClassSet) -> str:
    nearest = classes.nearest(name)
    return f" (did you mean {nearest}?)" if nearest else ""


def _some(what: str, values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return f"{what} {shown}{more}"


def _text(value: object) -> str | None:
    """A cell as text, None where it is empty; numbers read as whole numbers where they are."""
    if value is None or value is pd.NA or value != value:  # noqa: PLR0124 - NaN is not equal to itself
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas makes floats of integer ids in a column with gaps
    return str(value).strip() or None
