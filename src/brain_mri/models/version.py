"""A trained classifier as the files of one version, and back.

classifier.keras       the network: grey in, replication and scaling inside
graph.onnx             the same for an engine without TensorFlow, with the pooled features
preparation.json       how a scan becomes its input
calibration.json       temperature and thresholds
reference_features.npy what the network makes of training scans, to tell what is unlike them
recipe.json            what it was built and trained by
training_history.json  what happened
model_metadata.json    what it is, from which data, with which libraries
seen_scans.npy         numbers of the scans that it was trained and validated on
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.inference.classifier import (
    CALIBRATION_FILE,
    GRAPH_FILE,
    PREPARATION_FILE,
    RECIPE_FILE,
    REFERENCE_FILE,
    Calibration,
)
from brain_mri.inference.novelty import Reference
from brain_mri.models.recipe import Recipe

if TYPE_CHECKING:
    import keras

NETWORK_FILE = "classifier.keras"
HISTORY_FILE = "training_history.json"
METADATA_FILE = "model_metadata.json"
SEEN_FILE = "seen_scans.npy"


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """Everything that one version holds.

    Example:
        >>> files = classifier.to_files()  # doctest: +SKIP
        >>> TrainedClassifier.from_files(files.__getitem__).recipe.backbone  # doctest: +SKIP
        'compact'
    """

    network: keras.Model
    graph: bytes
    preparation: PrepareOptions
    calibration: Calibration
    reference: Reference
    recipe: Recipe
    history: Mapping[str, Any]
    metadata: Mapping[str, Any]
    seen: NDArray[np.int64]

    def to_files(self) -> dict[str, bytes]:
        """Return file name → content."""
        return {
            NETWORK_FILE: _network_bytes(self.network),
            GRAPH_FILE: self.graph,
            PREPARATION_FILE: _json_bytes(asdict(self.preparation)),
            CALIBRATION_FILE: _json_bytes(self.calibration.model_dump()),
            REFERENCE_FILE: self.reference.to_bytes(),
            RECIPE_FILE: _json_bytes(self.recipe.model_dump(mode="json")),
            HISTORY_FILE: _json_bytes(self.history),
            METADATA_FILE: _json_bytes(self.metadata),
            SEEN_FILE: _array_bytes(self.seen),
        }

    @classmethod
    def from_files(cls, read: Callable[[str], bytes]) -> TrainedClassifier:
        """Rebuild a classifier.

        Args:
            read: Returns the content of a named file: the `read` of a loaded version, a dict's `__getitem__`.

        Raises:
            ValueError: A file is not what it should be.
        """
        return cls(
            network=_network(read(NETWORK_FILE)),
            graph=read(GRAPH_FILE),
            preparation=PrepareOptions(**json.loads(read(PREPARATION_FILE))),
            calibration=Calibration.model_validate_json(read(CALIBRATION_FILE)),
            reference=Reference.from_bytes(read(REFERENCE_FILE)),
            recipe=Recipe.model_validate_json(read(RECIPE_FILE)),
            history=json.loads(read(HISTORY_FILE)),
            metadata=json.loads(read(METADATA_FILE)),
            seen=read_seen(read),
        )


def read_seen(read: Callable[[str], bytes]) -> NDArray[np.int64]:
    """The numbers of the scans that a version was trained and validated on."""
    return np.asarray(np.load(io.BytesIO(read(SEEN_FILE)), allow_pickle=False), dtype=np.int64)


def _array_bytes(values: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _network_bytes(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:  # Keras saves to paths only
        path = Path(folder) / NETWORK_FILE
        model.save(path)
        return path.read_bytes()


def _network(content: bytes) -> keras.Model:
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NETWORK_FILE
        path.write_bytes(content)
        return keras.saving.load_model(path, compile=False)
