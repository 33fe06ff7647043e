"""Catalog entries that load model inputs: as a handle, and as TensorFlow reads them."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from kedro.io import DatasetError
from kedro_datasets._typing import ImagePreview
from PIL import Image

from brain_mri.datasets.located import LocatedDataset
from brain_mri.datasets.shards import ShardSet
from brain_mri.storage.files import COMPLETE

if TYPE_CHECKING:
    import tensorflow as tf


class ShardSetDataset(LocatedDataset[None, Any]):
    """Model inputs as a `ShardSet`, the handle that training and reporting read through.

    Example:
        ```yaml
        model_inputs_train@shards:
          type: brain_mri.datasets.ShardSetDataset
          filepath: ${globals:storage}/05_model_input/model_inputs_train.parquet
        ```
    """

    def load(self) -> Any:
        """Return the handle; nothing but the completion mark is read."""
        return self._shards()

    def save(self, data: None) -> None:
        """Refuse: Spark writes model inputs, through the `@spark` entry."""
        raise DatasetError("Model inputs are written by Spark: save through the entry that ends in @spark.")

    def preview(self) -> ImagePreview:
        """Sixteen scans in a grid, for Kedro-Viz: read by pyarrow, drawn by Pillow."""
        shards = self._shards()
        _, _, pixels = shards.first(16)
        size = shards.image_size
        sheet = np.zeros((2 * size, 8 * size), np.uint8)
        for number, scan in enumerate(pixels):
            row, column = divmod(number, 8)
            sheet[row * size : (row + 1) * size, column * size : (column + 1) * size] = scan
        buffer = io.BytesIO()
        Image.fromarray(sheet).resize((1024, 256), Image.Resampling.BOX).save(buffer, "PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode())

    def _shards(self) -> ShardSet:
        shards = ShardSet(self._filepath, self._options)
        _ = shards.summary
        return shards

    def _exists(self) -> bool:
        filesystem, path = self._open()
        return bool(filesystem.exists(f"{path}/{COMPLETE}"))


class TensorFlowShardsDataset(ShardSetDataset):
    """Model inputs as a shuffled, batched `tf.data.Dataset`, streamed.

    Args:
        load_args: `batch_size` (default 32) and `shuffle_seed` (default 0; null keeps the order of the
            files).

    Example:
        ```yaml
        model_inputs_train@tensorflow:
          type: brain_mri.datasets.TensorFlowShardsDataset
          filepath: ${globals:storage}/05_model_input/model_inputs_train.parquet
          load_args:
            batch_size: 32
            shuffle_seed: 20
        ```
    """

    def __init__(self, *, load_args: dict[str, Any] | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._load_args = {"batch_size": 32, "shuffle_seed": 0, **(load_args or {})}

    def load(self) -> tf.data.Dataset:
        """Return one pass over the set."""
        return self._shards().tensorflow(**self._load_args)
