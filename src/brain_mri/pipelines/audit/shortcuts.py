"""The node of the pipeline `audit` that looks for shortcuts: what can be told without the head."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import balanced_accuracy_score

from brain_mri.models.shards import Shards
from brain_mri.pipelines.audit.parameters import AuditParameters

log = logging.getLogger(__name__)

_BATCH = 256
_RING, _PLACES = 1 / 28, 8  # width of the border, of the side; means along each side


def probe_shortcuts(
    manifest: pd.DataFrame,
    model_inputs_train: Shards,
    model_inputs_test: Shards,
    parameters: AuditParameters,
) -> list[dict[str, Any]]:
    """Train a classifier on what should not matter, and see how much it can tell.

    Boosted trees learn from the training scans: from size and traces of the file (bytes, format, mode,
    depth), from the border of the picture, from both. What they reach on the test scans, a network could
    reach without looking at the head (Geirhos et al., "Shortcut Learning in Deep Neural Networks", 2020).

    Returns:
        A row a probe: ``probe``, ``features``, ``accuracy``, ``balanced_accuracy``, ``chance`` (the accuracy
        of always naming the commonest class).
    """
    facts = manifest[manifest["status"] == "accepted"].drop_duplicates("scan_id").set_index("scan_id")
    sets = [_look(shards, facts, parameters.scans) for shards in (model_inputs_train, model_inputs_test)]
    (train_labels, *train), (labels, *test) = sets
    chance = float((labels == np.bincount(train_labels).argmax()).mean())
    rows = []
    for name, parts in {"file and size": [0], "border": [1], "file, size and border": [0, 1]}.items():
        learned, asked = (np.hstack([side[part] for part in parts]) for side in (train, test))
        model = HistGradientBoostingClassifier(max_iter=150, random_state=parameters.seed)
        answers = model.fit(learned, train_labels).predict(asked)
        rows.append(
            {
                "probe": name,
                "features": learned.shape[1],
                "accuracy": float((answers == labels).mean()),
                "balanced_accuracy": float(balanced_accuracy_score(labels, answers)),
                "chance": chance,
            }
        )
        log.info("From %s alone: accuracy %.3f (chance %.3f).", name, rows[-1]["accuracy"], chance)
    return rows


def _look(
    shards: Shards, facts: pd.DataFrame, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Labels, file features and border features of a set."""
    ids, labels, borders = [], [], []
    for scan_ids, own, pixels in shards.batches(_BATCH):
        ids += scan_ids.tolist()
        labels.append(own)
        borders.append(border_features(pixels))
        if len(ids) >= limit:
            break
    return np.concatenate(labels), file_features(facts.loc[ids]), np.concatenate(borders)


def file_features(facts: pd.DataFrame) -> NDArray[np.float64]:
    """What a file is like, without its picture: ``(n, 7)``."""
    width, height = facts["width"].to_numpy(float), facts["height"].to_numpy(float)
    columns = [
        width,
        height,
        width / height,
        facts["bytes"].to_numpy(float) / (width * height),
        facts["bit_depth"].to_numpy(float),
        facts["mode"].map(lambda mode: sum(map(ord, str(mode)))).to_numpy(float),
        facts["format"].map(lambda kind: sum(map(ord, str(kind)))).to_numpy(float),
    ]
    return np.column_stack(columns)


def border_features(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean grey values along the four sides, and how much they vary: ``(n, 36)``.

    Args:
        pixels: uint8 ``(n, size, size)``.
    """
    size = pixels.shape[1]
    ring = max(1, round(_RING * size))
    sides = [
        pixels[:, :ring].mean(axis=1),
        pixels[:, -ring:].mean(axis=1),
        pixels[:, :, :ring].mean(axis=2),
        pixels[:, :, -ring:].mean(axis=2),
    ]
    features = []
    for side in sides:
        features += [part.mean(axis=1) for part in np.array_split(side, _PLACES, axis=1)]
        features.append(side.std(axis=1))
    return np.column_stack(features)
