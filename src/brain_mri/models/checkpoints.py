"""The best weights of each stage as bytes, for a store that outlives the process.

A checkpoint is NumPy's own archive of `model.get_weights()`, in memory: Keras' `save_weights` writes to local
paths only, while bytes go to any storage. The same weights give the same bytes, and NumPy alone reads them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Checkpoints(Protocol):
    """A picklable handle to a store of named bytes; `brain_mri.datasets.CheckpointStore` is one."""

    def save(self, name: str, content: bytes) -> None:
        """Keep the content under a name, in place of what had it before."""
        ...

    def load(self, name: str) -> bytes | None:
        """Return what was kept under a name, or None."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


def checkpoint_name(number: int, stage_name: str) -> str:
    """File name of a stage's best weights.

    Args:
        number: Of the stage, from 0.
        stage_name: As in the recipe.

    Example:
        >>> checkpoint_name(0, "frozen base")
        '1-frozen-base.weights.npz'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", stage_name.lower()).strip("-")
    return f"{number + 1}-{slug}.weights.npz"


def pack_weights(weights: Sequence[NDArray[Any]]) -> bytes:
    """Turn the arrays of `model.get_weights()` into bytes.

    Example:
        >>> unpack_weights(pack_weights([np.zeros(2), np.ones(1)]))
        [array([0., 0.]), array([1.])]
    """
    buffer = io.BytesIO()
    np.savez(buffer, *weights)
    return buffer.getvalue()


def unpack_weights(content: bytes) -> list[NDArray[Any]]:
    """Turn the bytes of a checkpoint into arrays for `model.set_weights`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return [archive[f"arr_{number}"] for number in range(len(archive.files))]
