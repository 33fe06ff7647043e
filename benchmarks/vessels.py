"""Vessel maps against manual segmentations: the default way, the plain chain, and the fit of the network.

    .venv/bin/python benchmarks/vessels.py --drive /path/to/drive --chasedb1 /path/to/chasedb1
    .venv/bin/python benchmarks/vessels.py --drive /path/to/drive --fit

DRIVE is a folder with `images`, `mask` and `1st_manual`, CHASE_DB1 one with `Image_*.jpg` and `_1stHO.png`.
Everything is measured inside the field of view: of DRIVE its own masks, of CHASE_DB1 what we find. `--fit`
learns the network's weights from DRIVE, measures them on photographs left out (four folds), and writes
those of all photographs into the package.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file, too

from brain_mri.imaging.fundus import field_of_view
from brain_mri.imaging.photograph import decode_photograph
from brain_mri.imaging.vessels import (
    Layers,
    VesselOptions,
    clean_map,
    context_features,
    find_vessels,
    vessel_features,
    vessel_likeness,
)

PROJECT = Path(__file__).parents[1]
NETWORK = PROJECT / "src" / "brain_mri" / "imaging" / "vessel_network.json"
FOLDS = 4
EVERY = 9  # pixel is learned from
UNITS = (16, 24)


@dataclass(frozen=True)
class Example:
    """A photograph with its truth.

    Attributes:
        name: Of its file.
        photograph: uint8 ``(h, w, 3)``.
        field: bool ``(h, w)``, inside which is measured.
        truth: bool ``(h, w)``, the first observer's vessels.
    """

    name: str
    photograph: npt.NDArray[np.uint8]
    field: npt.NDArray[np.bool_]
    truth: npt.NDArray[np.bool_]


def drive(folder: Path) -> Iterator[Example]:
    """The photographs of DRIVE."""
    for path in sorted(folder.glob("images/*.tif")):
        number = path.name[:2]
        mask, truth = (next(folder.glob(f"{name}/{number}_*")) for name in ("mask", "1st_manual"))
        yield Example(path.name, decode_photograph(path.read_bytes()), _mask(mask), _mask(truth))


def chasedb1(folder: Path) -> Iterator[Example]:
    """The photographs of CHASE_DB1."""
    for path in sorted(folder.glob("Image_*.jpg")):
        photograph = decode_photograph(path.read_bytes())
        truth = _mask(path.with_name(f"{path.stem}_1stHO.png"))
        yield Example(path.name, photograph, field_of_view(photograph), truth)


def _mask(path: Path) -> npt.NDArray[np.bool_]:
    return np.asarray(Image.open(path).convert("L")) > 127


def measure(example: Example, found: Any, likeness: Any) -> dict[str, float]:
    """Sensitivity, specificity, accuracy, Dice, AUC inside the field."""
    truth, found, likeness = (plane[example.field] for plane in (example.truth, found > 0, likeness))
    hits = int((truth & found).sum())
    return {
        "sensitivity": hits / truth.sum(),
        "specificity": (~truth & ~found).sum() / (~truth).sum(),
        "accuracy": (truth == found).mean(),
        "dice": 2 * hits / (truth.sum() + found.sum()),
        "auc": roc_auc_score(truth, likeness),
    }


def show(name: str, rows: list[dict[str, float]]) -> dict[str, float]:
    """Print and return the means over photographs."""
    means = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    worst = min(row["dice"] for row in rows)
    print(
        f"{name:<36}"
        + "".join(f"{key} {value:.4f}  " for key, value in means.items())
        + f"worst Dice {worst:.3f}"
    )
    return means


def map_examples(examples: list[Example], options: VesselOptions) -> list[dict[str, float]]:
    """What the package finds, as a user gets it: in the field that it finds itself."""
    rows, seconds = [], []
    for example in examples:
        started = time.perf_counter()
        field = field_of_view(example.photograph)
        found = find_vessels(example.photograph, field, options)
        seconds.append(time.perf_counter() - started)
        likeness, _ = vessel_likeness(example.photograph, field, options)
        size = (field.shape[1], field.shape[0])
        rows.append(measure(example, found, cv2.resize(likeness, size, interpolation=cv2.INTER_LINEAR)))
    print(f"{1000 * statistics.median(seconds):.0f} ms a photograph")
    return rows


def fit(examples: list[Example]) -> tuple[list[Layers], list[dict[str, float]]]:
    """Learn both looks; the second from first looks at photographs that these had not learned from.

    Returns:
        The layers, and what folds that were left out of both give.
    """
    told = [vessel_features(example.photograph, example.field) for example in examples]
    truths = [example.truth[example.field] for example in examples]
    folds = [[k for k in range(len(examples)) if k % FOLDS == fold] for fold in range(FOLDS)]

    def planes(likeness: list[Any]) -> list[Any]:
        drawn = []
        for example, values in zip(examples, likeness, strict=True):
            plane = np.zeros(example.field.shape, np.float32)
            plane[example.field] = values
            drawn.append(plane)
        return drawn

    def left_out(features: list[Any], units: int) -> list[Any]:
        answers: dict[int, Any] = {}
        for fold in folds:
            rest = [k for k in range(len(examples)) if k not in fold]
            look = learn([features[k] for k in rest], [truths[k] for k in rest], units)
            answers |= {k: look(features[k]) for k in fold}
        return [answers[k] for k in range(len(examples))]

    first = planes(left_out(told, UNITS[0]))
    more = [
        np.concatenate([features, context_features(plane, example.field)], axis=1)
        for features, plane, example in zip(told, first, examples, strict=True)
    ]
    options, rows = VesselOptions(), {}
    for name, likeness in (("first look", first), ("second look", planes(left_out(more, UNITS[1])))):
        rows[name] = [
            measure(example, clean_map(plane, example.field, options), plane)
            for example, plane in zip(examples, likeness, strict=True)
        ]
        show(f"{name}, left out", rows[name])
    return [learn(told, truths, UNITS[0]), learn(more, truths, UNITS[1])], rows["second look"]


def learn(features: list[Any], truths: list[Any], units: int) -> Layers:
    """Fit one look to every so many pixels."""
    inputs = np.concatenate([rows[::EVERY] for rows in features])
    scaler = StandardScaler().fit(inputs)
    network = MLPClassifier(
        (units,), alpha=1e-3, batch_size=2000, learning_rate_init=3e-3, max_iter=60, random_state=1
    ).fit(scaler.transform(inputs), np.concatenate([rows[::EVERY] for rows in truths]))
    hidden, out = network.coefs_
    return Layers(
        *(np.round(values, 5).astype(np.float32) for values in (scaler.mean_, scaler.scale_, hidden)),
        np.round(network.intercepts_[0], 5).astype(np.float32),
        np.round(out[:, 0], 5).astype(np.float32),
        np.round(network.intercepts_[1][0], 5).astype(np.float32),
    )


def write(looks: list[Layers]) -> None:
    """Write the weights into the package."""
    plain: Callable[[Any], Any] = lambda value: np.round(np.float64(value), 5).tolist()  # noqa: E731
    content = {
        "fitted": "by benchmarks/vessels.py --fit, on the training half of DRIVE (Staal et al., 2004)",
        "looks": [{name: plain(value) for name, value in vars(look).items()} for look in looks],
    }
    NETWORK.write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"Written to {NETWORK.relative_to(PROJECT)}.")


def main() -> None:
    """Measure, or fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drive", type=Path)
    parser.add_argument("--chasedb1", type=Path)
    parser.add_argument("--fit", action="store_true", help="learn from DRIVE, and measure what is left out")
    options = parser.parse_args()
    sets = {"DRIVE": list(drive(options.drive)) if options.drive else []}
    sets["CHASE_DB1"] = list(chasedb1(options.chasedb1)) if options.chasedb1 else []
    if options.fit:
        looks, _ = fit(sets["DRIVE"])
        write(looks)
        return
    for name, examples in sets.items():
        for method in ("threshold", "network") if examples else ():
            show(f"{name}, {method}", map_examples(examples, VesselOptions(method=method)))


if __name__ == "__main__":
    main()
