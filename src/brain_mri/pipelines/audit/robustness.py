"""Nodes of the pipeline `audit` that ask the engine: spoilt scans, kinds of scans, pictures that are none."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_mri.datasets.packing import read_source
from brain_mri.datasets.source import Source, list_files
from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.metrics import compute_metrics
from brain_mri.evaluation.selective import SURE
from brain_mri.imaging.corruptions import CORRUPTIONS, corrupt, made_pictures
from brain_mri.imaging.decode import DecodeLimits, RefusedImage
from brain_mri.inference.classifier import ScanClassifier
from brain_mri.models.shards import ArrayShards, Shards
from brain_mri.pipelines.audit.parameters import AuditParameters
from brain_mri.pipelines.reporting.predicting import refuse_other_version, refuse_seen

log = logging.getLogger(__name__)

MADE_PICTURES = 150
_FOREIGN_AT_MOST = 2000


def measure_robustness(
    classifier: FolderVersion, model_inputs_test: Shards, parameters: AuditParameters
) -> list[dict[str, Any]]:
    """Spoil test scans in every way and degree, and measure what becomes of the answers.

    The scans are spoilt as the network sees them, after resizing.

    Returns:
        A row a kind and level: ``kind``, ``unit``, ``level``, ``scans``, ``accuracy``, ``macro_f1``,
        ``abstained`` and ``out_of_distribution`` (shares).
    """
    refuse_seen(classifier, model_inputs_test)
    engine = ScanClassifier(classifier.read)
    scans = ArrayShards.drawn(model_inputs_test, parameters.robustness_scans, parameters.seed)
    rows = []
    for kind, corruption in CORRUPTIONS.items():
        for level in corruption.levels:
            spoilt = np.stack(
                [
                    corrupt(image, kind, level, seed=parameters.seed + number)
                    for number, image in enumerate(scans.pixels)
                ]
            )
            answers = engine.answer(spoilt)
            metrics = compute_metrics(scans.labels, answers.calibrated, engine.classes)
            rows.append(
                {
                    "kind": kind,
                    "unit": corruption.unit,
                    "level": level,
                    "scans": scans.rows,
                    "accuracy": metrics["accuracy"],
                    "macro_f1": metrics["macro_f1"],
                    "abstained": float(answers.abstained.mean()),
                    "out_of_distribution": float(answers.out_of_distribution.mean()),
                }
            )
        log.info(
            "Robustness to %s: accuracy %s.", kind,
            ", ".join(f"{row['accuracy']:.3f} at {row['level']:g}" for row in rows if row["kind"] == kind),
        )  # fmt: skip
    return rows


def measure_strangers(
    classifier: FolderVersion, predictions: pd.DataFrame, parameters: AuditParameters
) -> dict[str, Any]:
    """See whether pictures that are no brain MRI are told from scans.

    Returns:
        ``threshold`` of the distance; ``test``, the distances of the test scans; and by kind of stranger
        (``noise`` and ``drawn`` pictures; ``foreign`` ones, where a folder of them is named) ``pictures``,
        ``refused`` (share that is out of distribution), ``auroc`` (against the test scans, by distance),
        ``confident`` (share of which the network alone would be sure: calibrated probability of `SURE`) and
        ``distances``.
    """
    engine = ScanClassifier(classifier.read)
    size = engine.options.image_size
    refuse_other_version(classifier, predictions)
    strangers = made_pictures(MADE_PICTURES, size, parameters.seed)
    if parameters.foreign:
        strangers["foreign"] = _foreign(parameters.foreign, engine)
    known = predictions["distance"].to_numpy()
    result: dict[str, Any] = {
        "threshold": engine.calibration.out_of_distribution_threshold,
        "test": known.tolist(),
        "strangers": {},
    }
    for kind, pictures in strangers.items():
        answers = engine.answer(pictures)
        refused = float(answers.out_of_distribution.mean())
        result["strangers"][kind] = {
            "pictures": len(pictures),
            "refused": refused,
            "auroc": _auroc(known, answers.distances),
            "confident": float((answers.calibrated.max(axis=1) >= SURE).mean()),
            "distances": answers.distances.tolist(),
        }
        log.info(
            "Of %d %s pictures that are no scan %.1f %% are refused.", len(pictures), kind, 100 * refused
        )
    return result


def measure_kinds(predictions: pd.DataFrame, manifest: pd.DataFrame) -> list[dict[str, Any]]:
    """Measure accuracy by what the files are like: size, shape, format, mode.

    Returns:
        A row a kind: ``by``, ``kind``, ``scans``, ``accuracy``; kinds of fewer than ten scans are left out.
    """
    accepted = manifest[manifest["status"] == "accepted"].drop_duplicates("scan_id").set_index("scan_id")
    facts = accepted.loc[predictions["scan_id"]]
    right = (predictions["label"] == predictions["predicted"]).to_numpy()
    longest = facts[["width", "height"]].max(axis=1)
    ratio = facts["width"] / facts["height"]
    shape = pd.cut(ratio, [0, 0.95, 1.05, np.inf], labels=["upright", "square", "lying"])
    sizes = pd.cut(
        longest, [0, 256, 400, 600, np.inf], labels=["to 256", "257 to 400", "401 to 600", "over 600"]
    )
    rows = []
    for by, kinds in {
        "longer side, pixels": sizes, "shape": shape, "format": facts["format"], "mode": facts["mode"],
    }.items():  # fmt: skip
        grouped = pd.Series(right).groupby(kinds.to_numpy(dtype=str)).agg(["size", "mean"])
        for kind, row in grouped.iterrows():
            if row["size"] >= 10:
                rows.append(
                    {"by": by, "kind": str(kind), "scans": int(row["size"]), "accuracy": float(row["mean"])}
                )
    return rows


def _foreign(folder: str, engine: ScanClassifier) -> NDArray[np.uint8]:
    prepared = []
    urls = list_files(Source("folder", folder, "audit.foreign names it"))["url"][:_FOREIGN_AT_MOST]
    for url in urls:
        content = read_source(url, DecodeLimits())
        if isinstance(content, bytes):
            try:
                prepared.append(engine.prepare(content))
            except RefusedImage:
                continue
    if not prepared:
        raise ValueError(f"audit.foreign names {folder!r}, and there is no picture in it that can be read.")
    if len(prepared) < len(urls):
        log.info(
            "%d of %d files in %s cannot be read as pictures.", len(urls) - len(prepared), len(urls), folder
        )
    return np.stack(prepared)


def _auroc(known: NDArray[np.float64], strange: NDArray[np.float64]) -> float:
    """How well the distance tells strangers from scans: 1 is perfect, 0.5 is chance."""
    from sklearn.metrics import roc_auc_score

    truth = np.r_[np.zeros(len(known)), np.ones(len(strange))]
    return float(roc_auc_score(truth, np.r_[known, strange]))
