"""Nodes of the pipeline `reporting` that show and measure what the network looked at."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brain_mri.datasets.versions import FolderVersion
from brain_mri.imaging.phantom import PHANTOM_CLASSES, draw_phantom
from brain_mri.imaging.prepare import PrepareOptions, head_box, head_mask, prepare_pixels
from brain_mri.models.explain import Explainer, Method, make_explainer, pointing_game, share_inside
from brain_mri.models.shards import Shards
from brain_mri.models.version import TrainedClassifier
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from brain_mri.pipelines.reporting.predicting import display_names
from brain_mri.report import results

log = logging.getLogger(__name__)

METHODS: dict[Method, str] = {"hirescam": "HiResCAM", "grad-cam": "Grad-CAM", "grad-cam++": "Grad-CAM++"}
SHOWN_FAILURES = 8
MEASURED_SCANS = 200
PHANTOMS_PER_CLASS = 25
TOLERANCE = 15 / 224
"""How far beside a lesion the highest point may lie, of the image's side: 15 pixels in Zhang et al. 2018."""


def explain_predictions(
    predictions: pd.DataFrame,
    classifier: FolderVersion,
    model_inputs_test: Shards,
    split_metadata: Mapping[str, Any],
    parameters: ReportingParameters,
) -> tuple[Figure, Figure, dict[str, Any]]:
    """Draw where the network saw a class, on right answers and on mistakes, and measure whether it is sane.

    Returns:
        ``gradcam``: a scan of each class. ``failures``: the mistakes, the surest first.
        ``explanations``: ``scans`` measured, the mean ``inside_head`` (share of the HiResCAM that lies inside
        the head) by class key, ``head`` (share of the picture that the head takes), and for drawn data
        ``pointing_game``: ``phantoms`` drawn for it, by method and class key the share of them on whose
        lesion the highest point of the map lies (``hits``), and by class key what a random point of the head
        would reach (``chance``).
    """
    trained = TrainedClassifier.from_files(classifier.read)
    explainers = {method: make_explainer(trained.network, method) for method in METHODS}
    examples, failures, measured = choose_explained(predictions, parameters.seed)
    wanted = {*examples["scan_id"], *failures["scan_id"], *measured["scan_id"]}
    pixels: dict[str, NDArray[np.uint8]] = {}
    for ids, _, images in model_inputs_test.batches(parameters.batch_size):
        pixels.update({key: image for key, image in zip(ids.tolist(), images, strict=True) if key in wanted})
    synthetic = bool(split_metadata["source"]["synthetic"])
    names = display_names(predictions)
    shown = _samples(examples, pixels, names, [(explainers[method], "predicted") for method in METHODS])
    finest = explainers["hirescam"]
    mistakes = _samples(failures, pixels, names, [(finest, "predicted"), (finest, "label")])
    explanations = _measure(measured, pixels, finest)
    if synthetic and set(model_inputs_test.classes) == set(PHANTOM_CLASSES):
        explanations["pointing_game"] = play_pointing_game(
            explainers, model_inputs_test.classes, trained.preparation, parameters.seed
        )
    wrong = int((predictions["label"] != predictions["predicted"]).sum())
    return (
        results.gradcam(shown, list(METHODS.values()), synthetic),
        results.failures(mistakes, wrong, synthetic),
        explanations,
    )


def choose_explained(predictions: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Choose what is explained.

    Returns:
        An example of every class (a right answer if there is one), the surest mistakes, and what is measured.
    """
    generator = np.random.default_rng(seed)
    order = predictions.iloc[generator.permutation(len(predictions))]
    is_right = order["label"] == order["predicted"]
    right_first = pd.concat([order[is_right], order[~is_right]])
    examples = right_first.drop_duplicates("label").sort_values("label")
    failures = order[~is_right].sort_values("confidence", ascending=False, kind="stable")
    return examples, failures[:SHOWN_FAILURES], order[:MEASURED_SCANS]


def play_pointing_game(
    explainers: Mapping[Method, Explainer], classes: Sequence[str], options: PrepareOptions, seed: int
) -> dict[str, Any]:
    """Draw heads with lesions whose place is known, and see whether maps point at them."""
    size = options.image_size
    reach = round(TOLERANCE * size)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    game: dict[str, Any] = {
        "phantoms": 0,
        "hits": {METHODS[method]: {} for method in explainers},
        "chance": {},
    }
    for label, name in enumerate(classes):
        draws = np.random.SeedSequence((seed, label)).generate_state(PHANTOMS_PER_CLASS)
        phantoms = [draw_phantom(name, int(number)) for number in draws]
        if not phantoms[0].lesion_mask.any():
            continue
        boxes = [head_box(phantom.pixels) if options.crop_to_head else ... for phantom in phantoms]
        images = np.stack([prepare_pixels(phantom.pixels, options) for phantom in phantoms])
        lesions = np.stack(
            [
                cv2.dilate(cv2.resize(phantom.lesion_mask[box].astype(np.uint8), (size, size)), disc) > 0
                for phantom, box in zip(phantoms, boxes, strict=True)
            ]
        )
        heads = np.stack([head_mask(image) for image in images])
        game["phantoms"] += len(images)
        for method, explain in explainers.items():
            maps = explain(images[..., np.newaxis], np.full(len(images), label)).maps
            game["hits"][METHODS[method]][name] = pointing_game(maps, lesions)
        game["chance"][name] = float(((lesions & heads).sum(axis=(1, 2)) / heads.sum(axis=(1, 2))).mean())
    shares = [f"{100 * np.mean(list(hits.values())):.0f} % ({name})" for name, hits in game["hits"].items()]
    log.info("Of %d drawn lesions the map points at %s.", game["phantoms"], ", ".join(shares))
    return game


def _measure(
    rows: pd.DataFrame, pixels: Mapping[str, NDArray[np.uint8]], explain: Explainer
) -> dict[str, Any]:
    """How much of the maps of the predicted classes lies inside the head."""
    images = np.stack([pixels[scan_id] for scan_id in rows["scan_id"]])
    heads = np.stack([head_mask(image) for image in images])
    maps = explain(images[..., np.newaxis], rows["predicted"].to_numpy()).maps
    inside = pd.Series(share_inside(maps, heads), index=rows["predicted_name"]).dropna()
    return {
        "scans": len(rows),
        "head": float(heads.mean()),
        "inside_head": {str(name): float(share) for name, share in inside.groupby(level=0).mean().items()},
    }


def _samples(
    rows: pd.DataFrame,
    pixels: Mapping[str, NDArray[np.uint8]],
    names: Mapping[str, str],
    asked: Sequence[tuple[Explainer, str]],
) -> list[results.SamplePrediction]:
    """Scans with a map for each question: by which explainer, and of the class in which column."""
    if rows.empty:
        return []
    images = np.stack([pixels[scan_id] for scan_id in rows["scan_id"]])
    maps = [explain(images[..., np.newaxis], rows[column].to_numpy()).maps for explain, column in asked]
    return [
        results.SamplePrediction(
            image, names[row.label_name], names[row.predicted_name], float(row.confidence), tuple(own)
        )
        for image, row, *own in zip(images, rows.itertuples(), *maps, strict=True)
    ]
