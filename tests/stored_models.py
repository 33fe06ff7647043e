"""Networks below a storage root, on a disk or on HDFS."""

from __future__ import annotations

from typing import Any

from brain_mri.datasets import KerasModelDataset


def trained_weights(root: str) -> list[Any]:
    """Weights of the network that was trained there last, as `get_weights()` lists them."""
    network = KerasModelDataset(filepath=f"{root}/06_models/trained_network.keras").load()
    return list(network.get_weights())
