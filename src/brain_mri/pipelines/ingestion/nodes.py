"""Nodes of the ingestion pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from brain_mri.cohort.classes import ClassSet
from brain_mri.cohort.layout import read_folder_layout, read_table_layout
from brain_mri.cohort.manifest import (
    SplitRule,
    build_manifest,
    check_every_class_is_left,
    check_refused_share,
    describe_splits,
    fingerprint,
)
from brain_mri.cohort.summary import summarise_cohort
from brain_mri.datasets.originals import Originals, plan_originals
from brain_mri.datasets.scans import PackedScans, Packing, plan_blocks
from brain_mri.datasets.source import RawFolder, list_files, locate_files, read_table
from brain_mri.pipelines.ingestion.parameters import IngestionParameters
from brain_mri.report import figures
from brain_mri.spark.launchers import Launcher, ProcessLauncher, SparkLauncher
from brain_mri.spark.session import get_session

logger = logging.getLogger(__name__)


def list_scans(raw: RawFolder, parameters: IngestionParameters) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Choose the source and list its files with class, official split, patient and size.

    Returns:
        `source_files` (path, url, bytes, label, official_split, patient, study), and what is known of the
        source: kind, url, why, layout, files, bytes.
    """
    source = raw.choose(parameters.source)
    if source.drawn:
        raw.draw_phantoms(parameters.phantom.images, parameters.phantom.seed)
    classes = parameters.class_set()
    if source.kind == "table":
        table, base = read_table(source)
        layout = read_table_layout(table, classes)
        listed = locate_files(layout.files["path"].tolist(), base)
    else:
        listed = list_files(source)
        layout = read_folder_layout(listed["path"], classes)
    files = listed.merge(layout.files, on="path", validate="one_to_one")
    description = {
        "kind": source.kind,
        "url": source.url,
        "why": source.why,
        "shared": source.is_shared,
        "layout": layout.description,
        "missing_classes": list(layout.missing_classes),
        "files": len(files),
        "bytes": int(files["bytes"].sum()),
    }
    logger.info(
        "Source: %s (%s), because %s: %d files, %.1f MB, %s.",
        source.url,
        "synthetic phantoms" if source.kind == "phantom" else source.kind,
        source.why,
        len(files),
        files["bytes"].sum() / 1e6,
        layout.description,
    )
    if layout.missing_classes:
        logger.warning("The source has no scans of: %s.", ", ".join(layout.missing_classes))
    return files, description


def pack_scans(
    files: pd.DataFrame, description: Mapping[str, Any], parameters: IngestionParameters
) -> Packing:
    """Plan the packing; saving it reads and inspects every file, and stores what is not stored yet."""
    progress = _progress("Inspecting and packing", len(files))
    return Packing(plan_blocks(files), _launcher(description), parameters.limits.limits(), progress)


def keep_originals(
    files: pd.DataFrame, description: Mapping[str, Any], parameters: IngestionParameters
) -> Originals:
    """Plan to store the files as they are, for other tools, where `ingestion.keep_original_files` says so."""
    if not parameters.keep_original_files:
        return Originals()
    progress = _progress("Storing original files", len(files))
    return plan_originals(files, description, _launcher(description), progress)


def _launcher(description: Mapping[str, Any]) -> Launcher:
    """Processes here for a source on this machine, which executors elsewhere cannot see; else Spark tasks."""
    return SparkLauncher(get_session()) if description["shared"] else ProcessLauncher()


def decide_splits(
    files: pd.DataFrame, scans: PackedScans, description: Mapping[str, Any], parameters: IngestionParameters
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Find copies and near copies, refuse what contradicts itself, and split by group.

    Returns:
        `manifest` and `split_metadata`.

    Raises:
        TooManyRefusedError: A larger share of files was refused than `ingestion.max_refused_share`.
    """
    inspections = scans.inspections()
    check_refused_share(inspections, parameters.max_refused_share)
    rule = SplitRule(parameters.test_split, parameters.split_ratios.as_tuple(), parameters.seed)
    manifest = build_manifest(files.drop(columns=["url", "bytes"]), inspections, rule)
    classes = [name for name in parameters.class_set().names if name not in description["missing_classes"]]
    metadata = describe_splits(manifest, classes, rule)
    check_every_class_is_left(metadata)
    source = {
        **description,
        "fingerprint": fingerprint(manifest),
        "synthetic": description["kind"] == "phantom",
    }
    statuses = manifest["status"].value_counts()
    logger.info(
        "Scans: %d accepted in %d groups, %d duplicates, %d quarantined (%s).",
        statuses.get("accepted", 0),
        metadata["groups"]["count"],
        statuses.get("duplicate", 0),
        statuses.get("quarantined", 0),
        ", ".join(f"{reason} {count}" for reason, count in metadata["quarantined"].items()) or "none",
    )
    if metadata["shared_with_official_test"]:
        logger.warning(
            "%d scans were moved out of training: they share a duplicate group with the official test half.",
            metadata["shared_with_official_test"],
        )
    logger.info("Scans by class and split:\n%s", _table_of_splits(manifest, classes))
    return manifest, {"source": source, **metadata, "parameters": parameters.model_dump(mode="json")}


def _table_of_splits(manifest: pd.DataFrame, classes: list[str]) -> str:
    """Number and bytes of the accepted scans by class and split, as text."""
    accepted = manifest[manifest["status"] == "accepted"]
    lines = [f"{'':12} {'train':>20} {'validation':>20} {'test':>20} {'all':>20}"]
    for label in [*classes, "all"]:
        of_class = accepted if label == "all" else accepted[accepted["label"] == label]
        line = f"{label:12}"
        for split in ("train", "validation", "test", "all"):
            found = of_class if split == "all" else of_class[of_class["split"] == split]
            line += f" {len(found):>9,} {found['bytes'].sum() / 1e6:7,.1f} MB"
        lines.append(line)
    return "\n".join(lines)


def collect_quarantine(manifest: pd.DataFrame, scans: PackedScans) -> pd.DataFrame:
    """What was refused: path, scan id, label, reason, and the bytes.

    The bytes are missing where the file could not be read.
    """
    refused = manifest.loc[manifest["status"] == "quarantined", ["path", "scan_id", "label", "reason"]]
    by_path = scans.refused_contents()
    rest = refused.loc[~refused["path"].isin(list(by_path)), "scan_id"]
    by_scan = scans.contents(sorted(set(rest)))
    contents = [
        by_path.get(path, by_scan.get(scan))
        for path, scan in zip(refused["path"], refused["scan_id"], strict=True)
    ]
    return refused.assign(content=pd.Series(contents, index=refused.index, dtype=object)).reset_index(
        drop=True
    )


def explore(manifest: pd.DataFrame, metadata: Mapping[str, Any]) -> tuple[dict[str, object], Figure, Figure]:
    """Summarise the cohort: JSON, the figure of classes and splits, the figure of image properties."""
    classes = metadata["classes"]
    exploration = summarise_cohort(manifest, classes)
    names, synthetic = ClassSet(tuple(classes)).display_names(), bool(metadata["source"]["synthetic"])
    weights: Any = exploration["class_weights"]
    return (
        exploration,
        figures.class_distribution(metadata["counts"], weights, names, synthetic),
        figures.image_properties(exploration, names, synthetic),
    )


def _progress(what: str, files: int) -> Callable[[Mapping[str, Any]], None]:
    """A progress bar over the files; it is gone when the last of them are in."""
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
    )
    task = bar.add_task(what, total=files)

    def advance(record: Mapping[str, Any]) -> None:
        bar.start()
        bar.advance(task, record["files"])
        if bar.finished:
            bar.stop()

    return advance
