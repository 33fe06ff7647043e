"""Nodes of the ingestion pipeline."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd
from kedro.io import DatasetError
from matplotlib.figure import Figure

from brain_mri.cohort.append import extend_manifest
from brain_mri.cohort.classes import ClassSet
from brain_mri.cohort.layout import read_folder_layout, read_table_layout
from brain_mri.cohort.manifest import (
    SplitRule,
    build_manifest,
    check_every_class_is_left,
    check_manifest,
    check_refused_share,
    describe_splits,
    fingerprint,
)
from brain_mri.cohort.summary import summarise_cohort
from brain_mri.datasets.originals import Originals, plan_originals
from brain_mri.datasets.scans import PackedScans, Packing, plan_blocks
from brain_mri.datasets.source import RawFolder, Source, list_files, locate_files, read_table
from brain_mri.datasets.tables import WideTable
from brain_mri.pipelines.ingestion.parameters import IngestionParameters
from brain_mri.pipelines.progress import progress_bar
from brain_mri.report import figures
from brain_mri.spark.launchers import Launcher, ProcessLauncher, SparkLauncher

logger = logging.getLogger(__name__)


class MixedSourcesError(DatasetError):
    """Scans would be added to others that they must not be mixed with."""


def list_scans(
    raw: RawFolder, earlier: Mapping[str, Any], parameters: IngestionParameters
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Choose the source and list its files with class, official split, patient and size.

    Args:
        raw: Where sources are looked for.
        earlier: The split metadata of an earlier run; empty where there was none.
        parameters: Of ingestion.

    Returns:
        `source_files` (path, url, bytes, label, official_split, patient, study), and what is known of the
        source: kind, url, why, layout, files, bytes, and `added_to`, the sources of the scans that it is
            added to.

    Raises:
        MixedSourcesError: The source would be added to scans that it must not be mixed with.
    """
    source = raw.choose(parameters.source)
    added_to = _earlier_sources(source, earlier, parameters)
    if source.drawn:
        raw.draw_phantoms(parameters.phantom.images, parameters.phantom.seed)
    classes, fewest = parameters.class_set(), 1 if added_to else 2
    if source.kind == "table":
        table, base = read_table(source)
        layout = read_table_layout(table, classes, fewest)
        listed = locate_files(layout.files["path"].tolist(), base)
    else:
        listed = list_files(source)
        layout = read_folder_layout(listed["path"], classes, fewest)
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
        "added_to": added_to,
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
    if layout.missing_classes and not added_to:
        logger.warning("The source has no scans of: %s.", ", ".join(layout.missing_classes))
    return files, description


def _earlier_sources(
    source: Source, earlier: Mapping[str, Any], parameters: IngestionParameters
) -> list[str]:
    """Say what becomes of the scans of an earlier run; URLs of their sources where they stay."""
    if not earlier:
        if parameters.append:
            logger.info("There are no earlier scans to add to: a first set is made.")
        return []
    before = earlier["source"]
    urls = [*before.get("added_to", []), before["url"]]
    if not parameters.append:
        if urls != [source.url]:
            logger.info(
                "Starting afresh: the scans here came from %s. ingestion.append=true would add to them.",
                " and ".join(urls),
            )
        return []
    kinds = ["drawn" if drawn else "a user's" for drawn in (source.kind == "phantom", before["synthetic"])]
    if kinds[0] != kinds[1]:
        raise MixedSourcesError(
            f"The scans of {source.url} are {kinds[0]}, those of {before['url']} are {kinds[1]}: drawn scans "
            "never mix with others. Name another ingestion.source or another storage root, or leave "
            "ingestion.append out to start afresh."
        )
    if earlier["test_split"] != "grouped":
        raise MixedSourcesError(
            f"The scans of {before['url']} keep that source's official test half, which others cannot join. "
            "Run without ingestion.append on a source that holds all files."
        )
    mirrored = earlier["parameters"].get("mirrored_copies", False)
    if mirrored != parameters.mirrored_copies:
        raise MixedSourcesError(
            f"The earlier scans were grouped with ingestion.mirrored_copies={str(mirrored).lower()}: groups "
            "would no longer mean one thing. Set it as it was, or leave ingestion.append out and name a "
            "source that holds all files."
        )
    names = parameters.class_set().names
    if [name for name in names if name in earlier["classes"]] != earlier["classes"]:
        raise MixedSourcesError(
            f"The earlier scans have the classes {', '.join(earlier['classes'])}, but ingestion.classes now "
            f"means {', '.join(names)}: labels would no longer fit together. Set ingestion.classes as it "
            "was; further classes may follow."
        )
    logger.info("Adding %s to the scans of %s.", source.url, " and ".join(urls))
    return list(dict.fromkeys(urls))


def pack_scans(
    files: pd.DataFrame,
    description: Mapping[str, Any],
    earlier: pd.DataFrame,
    parameters: IngestionParameters,
) -> Packing:
    """Plan the packing; saving it reads and inspects every file, and stores what is not stored yet.

    Args:
        files: As from `list_scans`.
        description: Likewise.
        earlier: The manifest of an earlier run. Where the source is added to it, its scans are not packed
            again.
        parameters: Of ingestion.
    """
    known = earlier[["scan_id", "bytes"]].query("scan_id != ''") if description["added_to"] else None
    return Packing(
        plan_blocks(files, known=known),
        _launcher(description),
        parameters.limits.limits(),
        earlier=None if known is None else frozenset(known["scan_id"]),
        progress=progress_bar("Inspecting and packing", len(files), "files"),
    )


def keep_originals(
    files: pd.DataFrame, description: Mapping[str, Any], parameters: IngestionParameters
) -> Originals:
    """Plan to store the files as they are, for other tools, where `ingestion.keep_original_files` says so."""
    if not parameters.keep_original_files:
        return Originals()
    progress = progress_bar("Storing original files", len(files), "files")
    adding = bool(description["added_to"])
    return plan_originals(files, description, _launcher(description), adding, progress)


def _launcher(description: Mapping[str, Any]) -> Launcher:
    """Processes here for a source on this machine, which executors elsewhere cannot see; else Spark tasks."""
    return SparkLauncher() if description["shared"] else ProcessLauncher()


def decide_splits(
    files: pd.DataFrame,
    scans: PackedScans,
    description: Mapping[str, Any],
    earlier: pd.DataFrame,
    parameters: IngestionParameters,
) -> tuple[WideTable, dict[str, Any]]:
    """Find copies and near copies, refuse what contradicts itself, and split by group.

    Args:
        files: As from `list_scans`.
        scans: What was packed.
        description: As from `list_scans`.
        earlier: The manifest of an earlier run. Where the source is added to it, its scans keep their split.
        parameters: Of ingestion.

    Returns:
        `manifest` and `split_metadata`.

    Raises:
        TooManyRefusedError: A larger share of files was refused than `ingestion.max_refused_share`.
    """
    inspections = scans.inspections()
    check_refused_share(inspections, parameters.max_refused_share)
    rule = SplitRule(
        parameters.test_split, parameters.split_ratios.as_tuple(), parameters.seed, parameters.mirrored_copies
    )
    found, thumbnails = files.drop(columns=["url", "bytes"]), scans.thumbnail_store()
    source = {**description, "synthetic": description["kind"] == "phantom"}
    if description["added_to"]:
        manifest, changes = extend_manifest(earlier, found, inspections, rule, thumbnails)
        source |= {"files": len(manifest), "bytes": int(manifest["bytes"].sum()), "changes": changes}
        logger.info("%s", _describe_changes(changes))
    else:
        manifest = build_manifest(found, inspections, rule, thumbnails)
    present = set(manifest["label"])
    classes = [name for name in parameters.class_set().names if name in present]
    metadata = describe_splits(manifest, classes, rule)
    check_every_class_is_left(metadata)
    source["fingerprint"] = fingerprint(manifest)
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

    def thumbnails_of(rows: pd.DataFrame) -> list[bytes | None]:
        have = [scan_id for scan_id in rows["scan_id"] if scan_id in thumbnails]
        found = dict(zip(have, map(bytes, thumbnails(have)), strict=True))
        return [found.get(scan_id) for scan_id in rows["scan_id"]]

    table = WideTable(manifest, "thumbnail", thumbnails_of)
    return table, {"source": source, **metadata, "parameters": parameters.model_dump(mode="json")}


def check_table(manifest: WideTable | pd.DataFrame) -> WideTable | pd.DataFrame:
    """The catalog's validator of the manifest, as it is saved and as it is loaded; see `cohort.manifest`."""
    check_manifest(manifest.rows if isinstance(manifest, WideTable) else manifest)
    return manifest


def _describe_changes(changes: Mapping[str, Any]) -> str:
    """What an added source changed, as a sentence."""
    added = {split: sum(by_class.values()) for split, by_class in changes["added"].items()}
    by_split = ", ".join(f"{split} +{count}" for split, count in added.items())
    refused = ", ".join(f"{reason} {count}" for reason, count in changes["quarantined"].items())
    return (
        f"Of {changes['files']} files {changes['known']} were known; {sum(added.values())} scans joined the "
        f"{changes['earlier']} earlier ones, which keep their splits ({by_split}); {changes['duplicates']} "
        f"more are copies, {sum(changes['quarantined'].values())} more are quarantined ({refused or 'none'})."
    )


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


def collect_quarantine(manifest: pd.DataFrame, scans: PackedScans) -> WideTable:
    """What was refused: path, scan id, label, reason, and the bytes.

    The bytes are missing where the file could not be read.
    """
    quarantined = manifest[manifest["status"] == "quarantined"]
    refused = quarantined[["path", "scan_id", "label", "reason"]].reset_index(drop=True)

    def contents_of(rows: pd.DataFrame) -> list[bytes | None]:
        found = scans.contents(rows["scan_id"])
        return [found.get(scan_id) for scan_id in rows["scan_id"]]

    return WideTable(refused, "content", contents_of, quarantined["bytes"].to_numpy())


def explore(manifest: pd.DataFrame, metadata: Mapping[str, Any]) -> tuple[dict[str, object], Figure, Figure]:
    """Summarise the cohort: JSON, the figure of classes and splits, the figure of image properties."""
    classes = metadata["classes"]
    exploration = summarise_cohort(manifest, classes)
    names, synthetic = ClassSet(tuple(classes)).display_names(), bool(metadata["source"]["synthetic"])
    return (
        exploration,
        figures.class_distribution(metadata["counts"], names, synthetic),
        figures.image_properties(exploration, names, synthetic),
    )
