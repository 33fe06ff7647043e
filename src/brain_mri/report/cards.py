"""What a reader wants first, and what a user of the model has to know: a summary, a model card, a data card.

The cards ask what Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, and Pushkarna et al., "Data
Cards", FAccT 2022, ask; every answer comes from the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brain_mri.report.text import decimal, interval, percent

NO_TUMOUR = "notumor"

Fact = tuple[str, str]


def summary_sentences(
    report: Mapping[str, Any], metrics: Mapping[str, float | None], synthetic: bool
) -> list[str]:
    """Say in plain words what the classifier does and how well.

    Args:
        report: The catalog entry ``classification_report``.
        metrics: The flat table.
        synthetic: Whether the scans were drawn by a program.

    Returns:
        At most nine sentences.
    """
    names, counts = report["names"], np.asarray(report["confusion_matrix"])
    scans = "drawn pictures" if synthetic else "scans"
    ends = interval(report["intervals"]["accuracy"])
    sentences = [
        f"This program looks at one picture of a head from an MRI scanner and names one of {len(names)} "
        f"classes: {_listed(list(names.values()))}.",
        f"It was tried on {report['scans']:,} {scans} that it had not seen before, and was right for "
        f"{report['right']:,} of them: {percent(metrics['accuracy'])} (with other such {scans} one would "
        f"expect {ends}).",
    ]
    if NO_TUMOUR in names:
        sentences += _tumour_sentences(list(names).index(NO_TUMOUR), counts)
    worst = counts - np.diag(np.diag(counts))
    if worst.any():
        label, answer = np.unravel_index(worst.argmax(), worst.shape)
        words = list(names.values())
        sentences.append(
            f"Its commonest mistake: {words[label]} taken for {words[answer]}, {worst[label, answer]:,} of "
            f"{counts[label].sum():,}."
        )
    sure = report["sure"]
    if sure["scans"]:
        sentences.append(
            f"Where it was at least {sure['confidence']:.0%} sure, which was so for {sure['scans']:,} "
            f"{scans}, it was right for {percent(sure['right'] / sure['scans'])}."
        )
    if report["abstained"]:
        sentences.append(
            f"For {report['abstained']:,} {scans} it would rather not answer; of its other answers "
            f"{percent(metrics['accuracy_answered'])} were right."
        )
    sentences.append(
        "It knows no patient, no history and no other slice of the same head, and a picture of anything but "
        "these classes it cannot name."
    )
    return sentences


def _tumour_sentences(healthy: int, counts: np.ndarray[Any, Any]) -> list[str]:
    """How many tumours were missed, and how many found where there is none."""
    missed = int(counts[:, healthy].sum() - counts[healthy, healthy])
    ill = int(counts.sum() - counts[healthy].sum())
    alarms = int(counts[healthy].sum() - counts[healthy, healthy])
    well = int(counts[healthy].sum())
    sentences = []
    if ill:
        sentences.append(
            f"Of {ill:,} tumours it missed {missed or 'none'} (called the scan free of tumours)."
        )
    if well:
        sentences.append(f"In {well:,} scans without a tumour it saw {alarms or 'none'}.")
    return sentences


def model_card(
    model: Mapping[str, Any], recipe: Mapping[str, Any], version: str, history: Mapping[str, Any]
) -> list[Fact]:
    """Name and answer of each question about the model."""
    stages = "; then ".join(
        f"{stage['name']}, up to {stage['epochs']} epochs of batches of {stage['batch_size']} at a learning "
        f"rate of {stage['learning_rate']:g}"
        for stage in recipe["stages"]
    )
    weights = model["weights"] or "random"
    return [
        ("Version", version),
        ("What it is", f"{model['backbone']}, {model['parameters']:,} parameters, input of "
         f"{model['image_size']}×{model['image_size']} grey pixels"),
        ("First weights", f"{weights}" + ("" if weights == "random" else
         "; trained on ImageNet, whose terms allow research and teaching only, unless you used others")),
        ("Recipe", f"“{recipe['name']}”: {stages}; seed {recipe['seed']}"),
        ("Trained on", f"{history['workers']} × {history['device']}" if history.get("workers", 1) > 1
         else history["device"]),
        ("Meant for", "research, teaching and trying out pipelines, on axial, coronal or sagittal slices of "
         "the head from MRI, in classes as named above"),
        ("Not meant for", "diagnosis, triage or any decision about a patient; other organs or modalities, "
         "whole volumes; more than one finding in a picture"),
        ("Known limits", "it sees a slice and no context; it was measured on scans from the same source as "
         "those it learned from, so expect less elsewhere; it has not been tried on children, on operated "
         "heads or with artefacts, of which nothing is known about these data"),
        ("Fairness", "age, sex, scanner and hospital are not in the data: whether it is as good for all is "
         "unknown"),
        ("Status", "research software, not a medical device"),
    ]  # fmt: skip


def data_card(split: Mapping[str, Any], exploration: Mapping[str, Any], synthetic: bool) -> list[Fact]:
    """Name and answer of each question about the data."""
    source = split["source"]
    url = ", then ".join(dict.fromkeys([*source.get("added_to", []), source["url"]]))
    by_split = ", ".join(f"{name} {sum(counts.values()):,}" for name, counts in split["counts"].items())
    groups = split["groups"]
    official = split["test_split"] == "official"
    return [
        ("Source", ("synthetic phantoms, " if synthetic else "") + url),
        ("Chosen because", source["why"]),
        ("Layout", source["layout"]),
        ("Files", f"{source['files']:,} found, {exploration['status'].get('accepted', 0):,} accepted, "
         f"{split['duplicates']:,} exact copies left out"),
        ("Splits", f"{by_split}; {shares(split)}; seed {split['seed']}"),
        ("Test split", "the source's own test half" if official else "drawn from all scans, whole groups"),
        ("Duplicate groups", f"{groups['count']:,}, the largest of {groups['largest']:,} scans; "
         f"{groups['with_near_copies']:,} of them hold several scans. A group is never split"),
        ("Mirror images", "in the group of their scan" if split["parameters"].get("mirrored_copies") else
         "not looked for, so that one of a training scan may be tested on; ingestion.mirrored_copies=true "
         "keeps them together"),
        ("Left out of training", f"{split['shared_with_official_test']:,} scans with a twin in the official "
         "test half"),
        ("Labels", "those of the source; nobody has checked them here"),
        ("People", "none: the pictures were drawn by a program" if synthetic else "patients of unknown "
         "number, age, sex and place, unless the source says more; several slices may be of one patient"),
        ("Licence", "phantoms may be used freely" if synthetic else "that of the source; nothing of it is "
         "part of this page but the scans shown as examples: mind that before you pass the page on"),
        ("Fingerprint", source["fingerprint"]),
    ]  # fmt: skip


def shares(split: Mapping[str, Any]) -> str:
    """The shares that were asked for."""
    return ", ".join(f"{name} {percent(share)}" for name, share in split["ratios"].items())


def repetition_rows(
    repetitions: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The table of what other seeds and averaging gave: column names, and a row of texts by its name."""
    columns = {"accuracy": "accuracy", "macro_f1": "macro F1"}
    columns |= {f"recall_{key}": f"{name} recall" for key, name in names.items()}
    columns |= {"log_loss": "log loss", "ece": "ECE"}
    rows: list[tuple[str, Mapping[str, Any]]] = [("this report: one pass", repetitions["single"])]
    seeds: Sequence[Mapping[str, Any]] = repetitions["seeds"]
    if len(seeds) > 1:
        rows += [(f"seed {row['seed']}, version {row['version']}", row) for row in seeds]
        rows += [("mean of the seeds", repetitions["mean"]), ("standard deviation", repetitions["spread"])]
        rows.append((f"ensemble of the {len(seeds)} seeds", repetitions["ensemble"]))
    rows.append(("scan and mirror image averaged", repetitions["mirrored"]))
    table = [(name, [decimal(values.get(key)) for key in columns]) for name, values in rows]
    return list(columns.values()), table


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
