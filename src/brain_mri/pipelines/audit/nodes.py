"""Nodes of the pipeline `audit` that draw and describe what the others measured."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from brain_mri.datasets.versions import FolderVersion
from brain_mri.evaluation.selective import SURE
from brain_mri.report.audit import robustness_curves, stranger_distances


def draw_audit(
    robustness: Sequence[Mapping[str, Any]], strangers: Mapping[str, Any], split_metadata: Mapping[str, Any]
) -> tuple[Figure, Figure]:
    """Draw robustness, and how far strangers are."""
    synthetic = bool(split_metadata["source"]["synthetic"])
    return (
        robustness_curves(robustness, synthetic),
        stranger_distances(strangers["test"], strangers["strangers"], strangers["threshold"], synthetic),
    )


def describe_audit(  # noqa: PLR0917 - inputs of a node
    classifier: FolderVersion,
    robustness: Sequence[Mapping[str, Any]],
    strangers: Mapping[str, Any],
    kinds: Sequence[Mapping[str, Any]],
    probes: Sequence[Mapping[str, Any]],
    shuffled: Mapping[str, Any],
    protocols: Sequence[Mapping[str, Any]],
    mirrors: Sequence[Mapping[str, Any]],
    robustness_png: bytes,
    strangers_png: bytes,
) -> dict[str, Any]:
    """What the report shows of an audit (`report.page.build_page`)."""
    fell, stayed = "fell to chance, as it must", "stayed above chance, so something leaks"
    best = max(probes, key=lambda probe: probe["balanced_accuracy"])
    words = [
        f"Trained on shuffled labels, it {fell if shuffled['fell_to_chance'] else stayed}: balanced accuracy "
        f"{shuffled['balanced_accuracy']:.3f} ({_ends(shuffled['interval'])}); chance is "
        f"{shuffled['chance']:.3f}.",
        f"Without looking at the head, boosted trees reach {best['accuracy']:.3f} from {best['probe']} "
        f"(always naming the commonest class: {best['chance']:.3f}). So much of any accuracy on these scans "
        "may be owed to where they come from.",
        *(
            f"Of {found['pictures']:,} {kind} pictures that are no scan, {found['refused']:.1%} are refused "
            f"as unlike the training scans (AUC {found['auroc']:.3f}); the network alone would be at least "
            f"{SURE:.0%} sure of {found['confident']:.1%}."
            for kind, found in strangers["strangers"].items()
        ),
    ]
    if len(protocols) > 1 and protocols[1]["protocol"].endswith("leaks removed"):
        cost = protocols[0]["accuracy"] - protocols[1]["accuracy"]
        words.append(
            f"By the source's official test half the accuracy is {protocols[0]['accuracy']:.4f}; "
            f"{protocols[0]['leaked']:.1%} of it have a copy or near copy in the training half. Without "
            f"those it is {protocols[1]['accuracy']:.4f}: {100 * cost:.2f} points were owed to the leak."
        )
    words.append(_say_mirrors({row["mirror_image"]: row for row in mirrors}))
    tables = [
        {
            "caption": "What can be told without looking at the head",
            "columns": ["from", "features", "accuracy", "balanced accuracy"],
            "rows": [
                [
                    probe["probe"],
                    str(probe["features"]),
                    f"{probe['accuracy']:.3f}",
                    f"{probe['balanced_accuracy']:.3f}",
                ]
                for probe in probes
            ],
        },
        {
            "caption": "Accuracy by what the files are like",
            "columns": ["by", "kind", "scans", "accuracy"],
            "rows": [
                [row["by"], row["kind"], f"{row['scans']:,}", f"{row['accuracy']:.3f}"] for row in kinds
            ],
        },
    ]
    if protocols:
        tables.insert(
            0,
            {
                "caption": "What leaks are worth: the same recipe by three protocols"
                + ("" if _as_long(protocols) else ", but with fewer epochs by the official one"),
                "columns": [
                    "protocol",
                    "epochs",
                    "trained on",
                    "tested on",
                    "leaked",
                    "accuracy",
                    "95 % interval",
                    "macro F1",
                ],
                "rows": [
                    [
                        row["protocol"],
                        " + ".join(str(epochs) for epochs in row["epochs"]),
                        f"{row['trained']:,}",
                        f"{row['tested']:,}",
                        f"{row['leaked']:.1%}",
                        f"{row['accuracy']:.4f}",
                        _ends(row["interval"]),
                        f"{row['macro_f1']:.4f}",
                    ]
                    for row in protocols
                ],
            },
        )
    pictures = {
        "Scans spoilt in five ways. Dotted: the share that it would still answer.": robustness_png,
        "Distance from the training scans. What lies right of the line is refused.": strangers_png,
    }
    return {
        "version": classifier.version,
        "title": "Audit",
        "paragraphs": words,
        "tables": tables,
        "figures": [
            {"caption": caption, "png": base64.b64encode(png).decode()} for caption, png in pictures.items()
        ],
        "robustness": [dict(row) for row in robustness],
    }


def _say_mirrors(rows: Mapping[str, Mapping[str, Any]]) -> str:
    if "with" not in rows:
        return "No test scan is tied to scans of training or validation by mirror images."
    seen = rows["with"]["tested"]
    every = sum(row["tested"] for row in rows.values())
    said = (
        f"Of {every:,} test scans {seen:,} ({seen / every:.1%}) would share a group with scans of training "
        "or validation if mirror images (left to right, upside down, or both) counted as copies. Accuracy "
        f"on these is {_accuracy(rows['with'])}"
    )
    if "without" in rows:
        said += f", and {_accuracy(rows['without'])} on the others"
    return (
        f"{said}. Scans with mirror images may be of other kinds and classes than those without, so this is "
        "not what the leak is worth: a run with ingestion.mirrored_copies=true, which keeps all of them on "
        "one side, says that."
    )


def _accuracy(row: Mapping[str, Any]) -> str:
    return f"{row['accuracy']:.3f} ({_ends(row['interval'])}; macro F1 {row['macro_f1']:.3f})"


def _as_long(protocols: Sequence[Mapping[str, Any]]) -> bool:
    return all(row["epochs"] == protocols[-1]["epochs"] for row in protocols)


def _ends(interval: Sequence[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–"
