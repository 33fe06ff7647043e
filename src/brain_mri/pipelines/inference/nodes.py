"""Nodes of the pipeline `inference`: list files, plan their scoring, measure where classes are known."""

from __future__ import annotations

import json
import logging
from typing import Any

import pandas as pd
from fsspec.implementations.local import LocalFileSystem

from brain_mri.cohort.classes import ClassSet
from brain_mri.cohort.layout import SourceLayoutError, class_in_path, is_no_scan
from brain_mri.datasets.scores import Scores, Scoring
from brain_mri.datasets.scoring import SCORED
from brain_mri.datasets.source import Source, list_files, readable
from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.metrics import compute_metrics, confusion_matrix
from brain_mri.inference.classifier import RECIPE_FILE
from brain_mri.pipelines.inference.parameters import InferenceParameters
from brain_mri.pipelines.ingestion.parameters import IngestionParameters
from brain_mri.pipelines.progress import progress_bar
from brain_mri.spark import session
from brain_mri.spark.launchers import Launcher, ProcessLauncher, SparkLauncher
from brain_mri.storage.files import local_url, open_filesystem

log = logging.getLogger(__name__)

FEW = 64
"""So few files of this machine are scored before Spark would have started."""


class NoFilesError(ValueError):
    """There is nothing to score."""


def plan_scoring(
    classifier: FolderVersion, ingestion: IngestionParameters, parameters: InferenceParameters
) -> Scoring:
    """List the files of all sources, and plan to score them; Spark carries it out when it is saved.

    Every file that is not hidden is scored, or refused with a reason. A file whose folders name a class has
    that as its label.

    Args:
        classifier: The version that scores.
        ingestion: Names what is refused, and further spellings of classes.
        parameters: Name the sources.

    Raises:
        NoFilesError: No source is named, one is not there, or they hold no files.
        SourceError: A folder cannot be listed.
    """
    sources = parameters.sources()
    if not sources:
        raise NoFilesError(
            "There is nothing to score: name a file or folder, as in `kedro predict PATH` or "
            "--params=inference.source=PATH."
        )
    classes = tuple(json.loads(classifier.read(RECIPE_FILE))["classes"])
    known = ingestion.class_set()
    if set(known.names) != set(classes):
        known = ClassSet(classes)
    files = pd.concat([list_source(source) for source in sources], ignore_index=True)
    files = files.drop_duplicates("url", ignore_index=True)
    if files.empty:
        raise NoFilesError(f"There are no files in {', '.join(sources)}.")
    files["label"] = [_label(path, known) for path in files["path"]]
    log.info(
        "Scoring %s files (%.1f MB) with version %s.", f"{len(files):,}", files["bytes"].sum() / 1e6,
        classifier.version,
    )  # fmt: skip
    shared = all(is_shared(source) for source in sources)
    progress = progress_bar("Scoring", len(files), "files")
    launcher = choose_launcher(len(files), shared)
    return Scoring(files, classifier, classes, launcher, ingestion.limits.limits(), progress)


def list_source(source: str) -> pd.DataFrame:
    """The files of a source: a file, or what lies in a folder at any depth.

    Returns:
        `path` (that of the source and what is below it), `url`, `bytes`, in the order of the paths.

    Raises:
        NoFilesError: There is nothing.
        SourceError: A folder cannot be listed.
    """
    filesystem, path = open_filesystem(source)
    if filesystem.isfile(path):
        url = source if "://" in source else local_url(path)
        row = {"path": readable(source), "url": url, "bytes": filesystem.size(path)}
        return pd.DataFrame([row])
    if not filesystem.isdir(path):
        raise NoFilesError(
            f"There is no file or folder at {source!r}. Expected a path here, or a URL such as hdfs:///scans."
        )
    listed = list_files(Source("folder", source, "it is to be scored"), pass_over_phantoms=False)
    listed = listed[~listed["path"].map(is_no_scan).astype(bool)]
    return listed.assign(path=[f"{readable(source).rstrip('/')}/{name}" for name in listed["path"]])


def choose_launcher(files: int, shared: bool, few: int = FEW) -> Launcher:
    """Who scores: Spark tasks where they can read the files and there are enough of them to be worth it.

    Else processes of this machine: executors of a cluster do not see its files.
    """
    if shared or (session.is_local() and files > few):
        return SparkLauncher()
    return ProcessLauncher(workers=1 if files <= few else None)  # one is this process itself


def measure_scores(scores: Scores) -> dict[str, Any]:
    """Measure the scores of files whose class is known.

    Returns:
        Empty where none is; else ``files`` that were measured, the metrics of
        :func:`brain_mri.evaluation.metrics.compute_metrics`, ``confusion_matrix`` (true classes in rows),
        ``classes``, ``coverage`` and ``accuracy_answered``.
    """
    classes = list(scores.summary["classes"])
    columns = [f"probability_{name}" for name in classes]
    rows = scores.to_pandas(["label", "status", "abstained", *columns])
    rows = rows[rows["label"].notna() & (rows["status"] == SCORED)]
    if rows.empty:
        return {}
    labels = rows["label"].map(classes.index).to_numpy()
    probabilities = rows[columns].to_numpy()
    right = probabilities.argmax(axis=1) == labels
    answered = ~rows["abstained"].to_numpy(dtype=bool)
    metrics = compute_metrics(labels, probabilities, classes)
    log.info(
        "%s files lie in folders of a class: accuracy %.4f, macro F1 %.4f.", f"{len(rows):,}",
        metrics["accuracy"], metrics["macro_f1"],
    )  # fmt: skip
    return {
        "files": len(rows),
        "classes": classes,
        **metrics,
        "coverage": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else None,
        "confusion_matrix": confusion_matrix(labels, probabilities.argmax(axis=1), len(classes)).tolist(),
    }


def _label(path: str, classes: ClassSet) -> str | None:
    try:
        return class_in_path(path, classes)
    except SourceLayoutError:  # its folders name several
        return None


def is_shared(source: str) -> bool:
    """Whether a place is on a storage that all machines reach, and not on this one's disk."""
    return not isinstance(open_filesystem(source)[0], LocalFileSystem)
