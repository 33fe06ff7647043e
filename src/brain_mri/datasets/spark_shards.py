"""Sets of model inputs as Spark tasks prepared them, and as Spark reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kedro.io import DatasetError

from brain_mri.datasets.shard_datasets import ShardSetDataset
from brain_mri.spark.reading import read_parts
from brain_mri.storage.files import COMPLETE, remove, write_file

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class SparkShardsDataset(ShardSetDataset):
    """Model inputs of one split: published from parts that tasks have prepared, loaded as a DataFrame.

    A set is the parts that its completion mark names. Saving writes the mark, in one step, so a reader sees
    the old set or the new one; then parts that it no longer names are removed.

    Example:
        ```yaml
        model_inputs_train@spark:
          type: brain_mri.datasets.SparkShardsDataset
          filepath: ${globals:storage}/05_model_input/model_inputs_train.parquet
        ```
    """

    def load(self) -> DataFrame:
        """Return the set as a DataFrame (`scan_id`, `label`, `pixels`); nothing is read yet."""
        filesystem, path = self._open()
        names = [part["name"] for part in self._shards().summary["parts"]]
        return read_parts(filesystem, path, names, "scan_id string, label long, pixels binary")

    def save(self, data: Mapping[str, Any]) -> None:  # type: ignore[override]  # the other forms only read
        """Publish a set.

        Args:
            data: What the mark says: `image_size`, `classes` and `parts`, as `PreparedParts.summary` gives
                it.

        Raises:
            DatasetError: A part is not here.
        """
        filesystem, path = self._open()
        filesystem.makedirs(path, exist_ok=True)
        entries = [str(entry).rstrip("/").rpartition("/")[2] for entry in filesystem.ls(path, detail=False)]
        names = {part["name"] for part in data["parts"]}
        if not names <= set(entries):
            raise DatasetError(
                f"{path} lacks parts that were prepared: {', '.join(sorted(names - set(entries)))}. Run "
                "`kedro run --pipelines=preprocessing`; its entry prepared_parts must name this folder."
            )
        write_file(filesystem, f"{path}/{COMPLETE}", json.dumps(data, indent=1).encode())
        for name in entries:
            if name not in names and name != COMPLETE:
                remove(filesystem, f"{path}/{name}")
