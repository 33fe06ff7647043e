"""One version of the classifier, answering without TensorFlow.

Scans are prepared as those that the network was trained on, its ONNX graph answers, and its calibration says
what the answers are worth. That the graph answers as the Keras network does was checked when the version was
made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from brain_mri.evaluation.calibration import apply_temperature
from brain_mri.imaging.decode import DEFAULT_LIMITS, DecodeLimits, GreyPixels
from brain_mri.imaging.prepare import PrepareOptions, prepare_scan
from brain_mri.inference.engine import open_engine
from brain_mri.inference.novelty import Reference

GRAPH_FILE = "graph.onnx"
PREPARATION_FILE = "preparation.json"
CALIBRATION_FILE = "calibration.json"
REFERENCE_FILE = "reference_features.npy"
RECIPE_FILE = "recipe.json"

_AT_ONCE = 4  # what the engine holds of a layer stays in the processor's cache


class Calibration(BaseModel):
    """How to read the network's answers.

    Attributes:
        temperature: Probabilities are softmax(log(p) / temperature).
        abstention_threshold: Below this largest calibrated probability the classifier should abstain.
        out_of_distribution_threshold: Above this distance from the training scans
            (:mod:`brain_mri.inference.novelty`) a picture is unlike those it was trained for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float
    abstention_threshold: float
    out_of_distribution_threshold: float


class Answers(NamedTuple):
    """What the classifier says of some pictures, a row a picture.

    Attributes:
        probabilities: float32 ``(n, classes)``, the network's own.
        calibrated: float64 ``(n, classes)``.
        distances: float64 ``(n,)``, from the training scans.
        abstained: bool ``(n,)``: it is not sure enough to answer.
        out_of_distribution: bool ``(n,)``: the picture is unlike those that it was trained for.
    """

    probabilities: NDArray[np.float32]
    calibrated: NDArray[np.float64]
    distances: NDArray[np.float64]
    abstained: NDArray[np.bool_]
    out_of_distribution: NDArray[np.bool_]


class ScanClassifier:
    """The engine of one version.

    Attributes:
        classes: Class keys in the order of the probabilities.
        options: How a scan becomes the network's input.
        calibration: How to read the answers.

    Example:
        >>> classifier = ScanClassifier(catalog.load("classifier").read)  # doctest: +SKIP
        >>> pixels = classifier.prepare(Path("scan.jpg").read_bytes())  # doctest: +SKIP
        >>> answers = classifier.answer(pixels[np.newaxis])  # doctest: +SKIP
        >>> classifier.classes[answers.calibrated[0].argmax()]  # doctest: +SKIP
        'glioma'
    """

    def __init__(self, read: Callable[[str], bytes], threads: int = 0) -> None:
        """Open a version.

        Args:
            read: Returns the content of a file of the version.
            threads: That the engine may use; 0 for all cores.
        """
        recipe = json.loads(read(RECIPE_FILE))
        self.classes: tuple[str, ...] = tuple(recipe["classes"])
        self.options = PrepareOptions(**json.loads(read(PREPARATION_FILE)))
        self.calibration = Calibration.model_validate_json(read(CALIBRATION_FILE))
        self._reference = Reference.from_bytes(read(REFERENCE_FILE))
        self._engine = open_engine(read(GRAPH_FILE), threads)

    def prepare(self, content: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> GreyPixels:
        """Decode and prepare a file, as those that the network was trained on.

        Returns:
            uint8 ``(size, size)``.

        Raises:
            RefusedImage: It is no usable image.
        """
        return prepare_scan(content, self.options, limits)

    def answer(self, pixels: NDArray[np.uint8]) -> Answers:
        """Name the classes of prepared scans.

        Args:
            pixels: uint8 ``(n, size, size)``, at least one.
        """
        parts = [
            self._engine(pixels[start : start + _AT_ONCE, ..., np.newaxis].astype(np.float32))
            for start in range(0, len(pixels), _AT_ONCE)
        ]
        probabilities, features = (np.concatenate(column) for column in zip(*parts, strict=True))
        calibrated = apply_temperature(probabilities, self.calibration.temperature)
        distances = self._reference.distances(features)
        return Answers(
            probabilities,
            calibrated,
            distances,
            calibrated.max(axis=1) < self.calibration.abstention_threshold,
            distances > self.calibration.out_of_distribution_threshold,
        )
