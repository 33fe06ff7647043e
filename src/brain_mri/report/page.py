"""The report: one HTML page that carries its pictures and style inside and needs no network and no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from brain_mri.report.cards import data_card, model_card, repetition_rows, summary_sentences
from brain_mri.report.repeat import repeat_command, run_settings, unwritable_settings
from brain_mri.report.text import decimal, duration, interval, percent

# Names and meanings of the metrics that people ask for; others are listed by their key.
_METRICS = {
    "accuracy": ("Accuracy", "share of test scans that were recognised"),
    "balanced_accuracy": (
        "Balanced accuracy",
        "mean recall of the classes, rare ones counting like frequent ones",
    ),
    "macro_precision": ("Macro precision", "mean precision of the classes"),
    "macro_f1": ("Macro F1", "mean F1 of the classes"),
    "weighted_f1": ("Weighted F1", "mean F1, each class by its number of scans"),
    "weighted_precision": ("Weighted precision", "mean precision, each class by its number of scans"),
    "weighted_recall": ("Weighted recall", "mean recall, each class by its number of scans"),
    "roc_auc_macro": (
        "Macro ROC AUC",
        "how well a class is ranked above the others; 0.5 is chance, 1 perfect",
    ),
    "log_loss": ("Log loss", "mean surprise at the truth, calibrated; 0 is perfect"),
    "log_loss_uncalibrated": ("Log loss, uncalibrated", "the same for the network's own probabilities"),
    "ece": ("Calibration error (ECE)", "mean gap between confidence and accuracy, calibrated; 0 is perfect"),
    "ece_uncalibrated": ("Calibration error, uncalibrated", "the same for the network's own probabilities"),
    "brier": ("Brier score", "squared distance from the truth, calibrated; 0 is perfect, 2 the worst"),
    "brier_uncalibrated": ("Brier score, uncalibrated", "the same for the network's own probabilities"),
    "coverage": ("Coverage", "share of test scans on which the classifier would not abstain"),
    "accuracy_answered": ("Accuracy where it answers", "share recognised among those"),
    "out_of_distribution_share": (
        "Unlike training scans",
        "share of test scans that would be refused as no brain MRI",
    ),
    "preprocessing_images_per_second": ("Preprocessing", "scans a second"),
}
_PER_CLASS = ("precision", "recall", "specificity", "f1", "roc_auc")


def build_page(
    *,
    metrics: Mapping[str, float | None],
    report: Mapping[str, Any],
    split_metadata: Mapping[str, Any],
    preprocessing_stats: Mapping[str, Any],
    exploration: Mapping[str, Any],
    training_history: Mapping[str, Any],
    model_metadata: Mapping[str, Any],
    recipe: Mapping[str, Any],
    version: str,
    explanations: Mapping[str, Any],
    repetitions: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    synthetic: bool,
    sections: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write the page.

    Args:
        metrics: The flat table; every number of it is on the page.
        report: The catalog entry ``classification_report`` (as the node ``evaluate`` makes it).
        split_metadata: Source, splits, groups, duplicates, quarantine, the parameters of ingestion.
        preprocessing_stats: Its ``parameters`` are those of preprocessing.
        exploration: As ``cohort.summary.summarise_cohort`` makes it.
        training_history: ``stages``, ``warnings``, ``device``, ``seconds``.
        model_metadata: What the model is, its calibration and the versions it was made with.
        recipe: By which it was trained.
        version: Of the model.
        explanations: The catalog entry of that name.
        repetitions: The catalog entry of that name.
        pictures: PNG bytes by figure name.
        synthetic: Whether to put up the banner "Synthetic data".
        sections: What other pipelines contribute: each a mapping with ``title`` and, as far as it has them,
            ``paragraphs`` (sentences), ``tables`` (``caption``, ``columns``, ``rows``) and ``figures``
            (``caption``, ``png`` in base64). All text is escaped.

    Returns:
        A complete HTML document.

    Example:
        >>> page = build_page(metrics=metrics, report=report, ..., synthetic=True)  # doctest: +SKIP
        >>> Path("report.html").write_text(page)  # doctest: +SKIP
    """
    settings = run_settings(split_metadata, preprocessing_stats, model_metadata)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            metrics=metrics,
            metric_rows=_metric_rows(metrics, report),
            summary=summary_sentences(report, metrics, synthetic),
            model_card=model_card(model_metadata, recipe, version, training_history),
            data_card=data_card(split_metadata, exploration, synthetic),
            explanations=explanations,
            repetitions=repetition_rows(repetitions, report["names"]),
            report=report,
            names=report["names"],
            commonest=max((scores["support"] for scores in report["per_class"].values()), default=0),
            class_rows=_class_rows(
                split_metadata["counts"],
                exploration["class_weights"] if recipe["class_weights"] else {},
                report["names"],
            ),
            weighted=recipe["class_weights"],
            split=split_metadata,
            source=split_metadata["source"],
            exploration=exploration,
            history=training_history,
            model=model_metadata,
            pictures={name: base64.b64encode(content).decode() for name, content in pictures.items()},
            command=repeat_command(settings),
            unwritable=unwritable_settings(settings),
            synthetic=synthetic,
            sections=sections,
        )
    )


def _metric_rows(
    metrics: Mapping[str, float | None], report: Mapping[str, Any]
) -> list[tuple[str, float | None, str, str]]:
    """Name, value, 95 % interval and meaning of every metric that the table per class does not show."""
    shown_per_class = {f"{score}_{key}" for key in report["names"] for score in _PER_CLASS}
    rows = []
    for key, value in metrics.items():
        if key not in shown_per_class:
            name, meaning = _METRICS.get(key, (key, ""))
            ends = report["intervals"].get(key)
            rows.append((name, value, f"{decimal(ends[0])} – {decimal(ends[1])}" if ends else "", meaning))
    return rows


def _class_rows(
    counts: Mapping[str, Mapping[str, int]], weights: Mapping[str, float], names: Mapping[str, str]
) -> list[tuple[str, list[int], float]]:
    """Name, scans in every split and together, and weight of every class; the last row adds them up."""
    table = [[part.get(key, 0) for part in counts.values()] for key in names]
    rows = [
        (name, [*numbers, sum(numbers)], weights.get(key, 0.0))
        for (key, name), numbers in zip(names.items(), table, strict=True)
    ]
    sums = [sum(column) for column in zip(*table, strict=True)]
    return [*rows, ("All", [*sums, sum(sums)], 1.0)]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("brain_mri.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, decimal=decimal, duration=duration, interval=interval)
    return environment
