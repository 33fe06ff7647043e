"""The node of the pipeline `audit` that finds test scans tied to learned ones by mirror images."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from brain_mri.cohort.groups import duplicate_groups, person_keys
from brain_mri.datasets.scans import PackedScans
from brain_mri.datasets.shards import scan_numbers
from brain_mri.datasets.versions import FolderVersion
from brain_mri.models.version import read_seen
from brain_mri.pipelines.audit.parameters import AuditParameters
from brain_mri.pipelines.audit.protocols import measured
from brain_mri.pipelines.reporting.predicting import OtherScansError, display_names, refuse_other_version

log = logging.getLogger(__name__)


def measure_mirrors(
    classifier: FolderVersion,
    manifest: pd.DataFrame,
    scans: PackedScans,
    predictions: pd.DataFrame,
    parameters: AuditParameters,
) -> list[dict[str, Any]]:
    """Measure test scans apart that share a group with a scan of training or validation by a mirror image.

    Groups hold near copies; whether they hold those of mirror images depends on `ingestion.mirrored_copies`.
    A network that is trained with flips has as good as seen such a scan.

    Returns:
        A row for the test scans ``with`` a scan that the version has seen in their group, once mirror images
        count, and one for those ``without``: ``mirror_image`` and what `protocols.measured` returns; no row
        where there are no such scans.

    Raises:
        OtherVersionError: The predictions are not those of the version.
        OtherScansError: The manifest lacks scans that the version was tested on or has seen.
    """
    refuse_other_version(classifier, predictions)
    people = manifest.assign(patient=person_keys(manifest), study=None)
    accepted = people[people["status"] == "accepted"]
    tested = accepted["scan_id"].isin(predictions["scan_id"]).to_numpy()
    numbers, known = scan_numbers(accepted["scan_id"].to_numpy(str)), read_seen(classifier.read)
    seen = np.isin(numbers, known)
    unknown = ~predictions["scan_id"].isin(accepted["scan_id"])
    missing = int(unknown.sum()) + int((~np.isin(known, numbers)).sum())
    if missing:
        raise OtherScansError(
            f"{missing} scans that version {classifier.version} was tested on or has seen are not in the "
            "manifest: ingestion has run since. Run "
            "`kedro run --pipelines=preprocessing,training,reporting`."
        )
    either = tested | seen
    some, tested, seen = accepted[either], tested[either], seen[either]
    groups = duplicate_groups(some, scans.thumbnail_store(), mirrored=True)
    found = some["scan_id"].to_numpy()[tested & np.isin(groups, groups[seen])]
    has = predictions["scan_id"].isin(found).to_numpy()
    classes = tuple(display_names(predictions))
    rows = []
    for name, which in {"with": has, "without": ~has}.items():
        answers = predictions[which]
        if len(answers):
            probabilities = answers[[f"calibrated_{each}" for each in classes]].to_numpy()
            labels, group = answers["label"].to_numpy(), answers["duplicate_group"].to_numpy()
            row = measured(labels, probabilities, group, classes, parameters.seed)
            rows.append({"mirror_image": name, **row})
            log.info(
                "Test scans %s learned scans in their group, once mirror images count: %d, accuracy %.4f.",
                name, len(answers), row["accuracy"],
            )  # fmt: skip
    return rows
