"""The node of the pipeline `audit` that looks for mirror images of test scans among the training scans."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from brain_mri.cohort.groups import hash_bits
from brain_mri.cohort.near import near_copies
from brain_mri.datasets.scans import PackedScans
from brain_mri.datasets.versions import FolderVersion
from brain_mri.inference.classifier import ScanClassifier
from brain_mri.pipelines.audit.parameters import AuditParameters
from brain_mri.pipelines.audit.protocols import measured
from brain_mri.pipelines.reporting.predicting import refuse_other_version

log = logging.getLogger(__name__)


def measure_mirrors(
    classifier: FolderVersion,
    manifest: pd.DataFrame,
    scans: PackedScans,
    predictions: pd.DataFrame,
    parameters: AuditParameters,
) -> list[dict[str, Any]]:
    """Measure test scans apart that have a mirror image among the training scans.

    Groups hold near copies; whether they hold those of mirror images depends on `ingestion.mirrored_copies`.
    A network that is trained with flips has seen such a scan.

    Returns:
        A row for the test scans ``with`` a near copy among the training scans, mirrored left to right, upside
        down, or both, and one for those ``without``: ``mirror_image`` and what `protocols.measured` returns;
        no row where there are no such scans.
    """
    refuse_other_version(classifier, predictions)
    accepted = manifest[manifest["status"].eq("accepted") & manifest["split"].isin(["train", "test"])]
    tested = accepted["split"].eq("test").to_numpy()
    groups = pd.factorize(accepted["duplicate_group"])[0]
    pairs = near_copies(
        hash_bits(accepted["dhash"]),
        accepted["scan_id"].to_numpy(dtype=object),
        scans.thumbnail_store(),
        tested,
        lambda: groups,
        mirrored=True,
    )
    found: set[str] = set()
    for first, second in pairs:
        crossing = tested[first] != tested[second]
        ends = np.concatenate([first[crossing], second[crossing]])
        found.update(accepted["scan_id"].to_numpy()[ends[tested[ends]]])
    classes = ScanClassifier(classifier.read).classes
    has = predictions["scan_id"].isin(found).to_numpy()
    rows = []
    for name, which in {"with": has, "without": ~has}.items():
        some = predictions[which]
        if len(some):
            probabilities = some[[f"calibrated_{each}" for each in classes]].to_numpy()
            labels, group = some["label"].to_numpy(), some["duplicate_group"].to_numpy()
            row = measured(labels, probabilities, group, classes, parameters.seed)
            rows.append({"mirror_image": name, **row})
            log.info(
                "Test scans %s a mirror image among the training scans: %d, accuracy %.4f.",
                name, len(some), row["accuracy"],
            )  # fmt: skip
    return rows
