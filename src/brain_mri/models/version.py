"""A trained classifier as the files of one version, and back.

classifier.keras       the network: grey in, replication and scaling inside
graph.onnx             the same for an engine without TensorFlow
preparation.json       how a scan becomes its input
calibration.json       temperature and thresholds
recipe.json            what it was built and trained by
training_history.json  what happened
model_metadata.json    what it is, from which data, with which libraries
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.models.recipe import Recipe

if TYPE_CHECKING:
    import keras

NETWORK_FILE = "classifier.keras"
GRAPH_FILE = "graph.onnx"
PREPARATION_FILE = "preparation.json"
CALIBRATION_FILE = "calibration.json"
RECIPE_FILE = "recipe.json"
HISTORY_FILE = "training_history.json"
METADATA_FILE = "model_metadata.json"


class Calibration(BaseModel):
    """How to read the network's probabilities.

    Attributes:
        temperature: Probabilities are softmax(log(p) / temperature).
        abstention_threshold: Below this largest calibrated probability the classifier should abstain.
        out_of_distribution_threshold: Below this largest calibrated probability the image is unlike those it
            was trained for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float
    abstention_threshold: float
    out_of_distribution_threshold: float


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
    recipe: Recipe
    history: Mapping[str, Any]
    metadata: Mapping[str, Any]

    def to_files(self) -> dict[str, bytes]:
        """Return file name → content."""
        return {
            NETWORK_FILE: _network_bytes(self.network),
            GRAPH_FILE: self.graph,
            PREPARATION_FILE: _json_bytes(asdict(self.preparation)),
            CALIBRATION_FILE: _json_bytes(self.calibration.model_dump()),
            RECIPE_FILE: _json_bytes(self.recipe.model_dump(mode="json")),
            HISTORY_FILE: _json_bytes(self.history),
            METADATA_FILE: _json_bytes(self.metadata),
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
            recipe=Recipe.model_validate_json(read(RECIPE_FILE)),
            history=json.loads(read(HISTORY_FILE)),
            metadata=json.loads(read(METADATA_FILE)),
        )


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
