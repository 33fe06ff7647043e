"""A catalog entry that is one Keras model."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro_datasets._typing import JSONPreview

from brain_mri.datasets.files import FileDataset
from brain_mri.storage.files import open_filesystem

if TYPE_CHECKING:
    import keras


class KerasModelDataset(FileDataset["keras.Model", "keras.Model"]):
    """A Keras model in Keras' own `.keras` format, on any filesystem.

    Keras itself writes only to local paths, so the file goes through a temporary folder.

    Example:
        ```yaml
        trained_network:
          type: brain_mri.datasets.KerasModelDataset
          filepath: ${globals:storage}/06_models/trained_network.keras
        ```
    """

    def _encode(self, data: keras.Model) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            data.save(path)
            return path.read_bytes()

    def _decode(self, content: bytes) -> keras.Model:
        import keras

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            path.write_bytes(content)
            return keras.saving.load_model(path)

    def preview(self) -> JSONPreview:
        """Keras version and layers, for Kedro-Viz, read from the archive without TensorFlow."""
        filesystem, path = open_filesystem(self._filepath, **self._options)
        # Of the archive only its list and these two small members are read, not the weights.
        with filesystem.open(path, "rb") as stream, zipfile.ZipFile(stream) as archive:
            metadata: dict[str, Any] = json.loads(archive.read("metadata.json"))
            layers = json.loads(archive.read("config.json"))["config"].get("layers", [])
        summary = {
            **metadata,
            "layers": [f"{layer['class_name']} {layer['config']['name']}" for layer in layers],
        }
        return JSONPreview(json.dumps(summary))
