"""The node of the pipeline `reporting` that compares a version with another one on the same test split."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.bootstrap import bootstrap_difference
from brain_mri.evaluation.metrics import compute_metrics
from brain_mri.inference.classifier import ScanClassifier
from brain_mri.models.shards import Shards
from brain_mri.models.version import METADATA_FILE
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from brain_mri.pipelines.reporting.predicting import count_seen

log = logging.getLogger(__name__)

_SIGNIFICANT = 0.05

_COMPARED = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
    "roc_auc_macro": "macro ROC AUC", "log_loss": "log loss", "ece": "ECE", "brier": "Brier score",
}  # fmt: skip


class NotComparableError(ValueError):
    """Another version cannot be measured on this test split, or there is none of that name."""


def compare_versions(
    classifier: FolderVersion,
    versions: Iterable[FolderVersion],
    predictions: pd.DataFrame,
    model_inputs_test: Shards,
    parameters: ReportingParameters,
) -> dict[str, Any]:
    """Predict the test split with another version, and say which of both is better, and how surely.

    Args:
        classifier: The version of the report.
        versions: All that there are.
        predictions: Of the version of the report.
        model_inputs_test: The test split.
        parameters: Name the other version.

    Returns:
        Empty where no other version is named. Else a section of the report (`report.page.build_page`), with
        ``metrics`` of both by their versions, ``difference`` of the accuracies (this one minus the other) and
        its ``interval`` (95 %, over duplicate groups), and the scans that only one of both recognised
        (``only_this``, ``only_other``) with McNemar's exact ``p_value``.

    Raises:
        NotComparableError: There is no such version, it was trained or validated on a scan of this test
            split, or it has other classes or takes scans that are prepared otherwise.
    """
    if parameters.compare is None:
        return {}
    other = _find(classifier, versions, parameters.compare)
    engine = ScanClassifier(other.read)
    if engine.classes != tuple(model_inputs_test.classes):
        raise NotComparableError(
            f"Version {other.version} knows the classes {', '.join(engine.classes)}, the test split has "
            f"{', '.join(model_inputs_test.classes)}: they cannot be compared."
        )
    if engine.options != model_inputs_test.prepare_options:
        raise NotComparableError(
            f"Version {other.version} takes scans that are prepared otherwise ({engine.options}; here "
            f"{model_inputs_test.prepare_options}). Run preprocessing with its settings in another storage "
            "root."
        )
    seen = count_seen(other, model_inputs_test)
    if seen:
        raise NotComparableError(
            f"Version {other.version} was trained or validated on {seen} of the {model_inputs_test.rows} "
            "scans of this test split: what it says of them is no measurement. Compare versions of one "
            "split, or leave reporting.compare out."
        )
    answers = [
        (ids, engine.answer(pixels)) for ids, _, pixels in model_inputs_test.batches(parameters.batch_size)
    ]
    ids = np.concatenate([own for own, _ in answers])
    calibrated = np.concatenate([answer.calibrated for _, answer in answers])
    calibrated = calibrated[pd.Index(ids).get_indexer(pd.Index(predictions["scan_id"]))]
    labels = predictions["label"].to_numpy()
    own = predictions[[f"calibrated_{name}" for name in engine.classes]].to_numpy()
    metrics = {
        classifier.version: compute_metrics(labels, own, engine.classes, parameters.calibration_bins),
        other.version: compute_metrics(labels, calibrated, engine.classes, parameters.calibration_bins),
    }
    right, right_other = own.argmax(axis=1) == labels, calibrated.argmax(axis=1) == labels
    difference = float(right.mean() - right_other.mean())
    interval = bootstrap_difference(
        right_other, right, predictions["duplicate_group"], parameters.seed, parameters.bootstrap_replicates
    )
    only_this, only_other = int((right & ~right_other).sum()), int((right_other & ~right).sum())
    differing = only_this + only_other
    p_value = float(binomtest(only_this, differing).pvalue) if differing else 1.0
    verdict = "no clear difference"
    if not interval[0] <= 0 <= interval[1] and p_value < _SIGNIFICANT:  # of few scans they may disagree
        verdict = "this version is better" if difference > 0 else "the other version is better"
    recipe = json.loads(other.read(METADATA_FILE)).get("recipe", "")
    log.info(
        "Compared with version %s: accuracy %+.4f (%.4f to %.4f): %s.", other.version, difference, *interval,
        verdict,
    )  # fmt: skip
    return {
        "version": classifier.version,
        "other": other.version,
        "metrics": metrics,
        "difference": difference,
        "interval": list(interval),
        "only_this": only_this,
        "only_other": only_other,
        "p_value": p_value,
        "title": "Compared with another version",
        "paragraphs": [
            f"Version {other.version} (recipe “{recipe}”) has predicted the same {len(labels):,} test scans, "
            "none of whose files it had seen. The accuracy differs by "
            f"{100 * difference:+.2f} points (95 % interval {100 * interval[0]:+.2f} to "
            f"{100 * interval[1]:+.2f}): {verdict}. {only_this} scans were recognised by this version alone, "
            f"{only_other} by the other alone (McNemar's exact p = {p_value:.3f})."
        ],
        "tables": [
            {
                "caption": "Both versions on this test split",
                "columns": ["metric", "this version", other.version],
                "rows": [
                    [
                        name,
                        *(
                            f"{table[key]:.4f}" if table[key] is not None else "–"
                            for table in metrics.values()
                        ),
                    ]
                    for key, name in _COMPARED.items()
                ],
            }
        ],
        "figures": [],
    }


def _find(classifier: FolderVersion, versions: Iterable[FolderVersion], name: str) -> FolderVersion:
    known = {version.version: version for version in versions}
    if name not in known:
        raise NotComparableError(
            f"There is no version {name!r} to compare with; there are {', '.join(sorted(known))}."
        )
    if name == classifier.version:
        raise NotComparableError(
            f"{name} is the version of this report: name another one to compare it with."
        )
    return known[name]
