"""What a training needs to go on from where it was, as bytes for a store that outlives the process.

After every epoch the whole state is kept: weights, those of the best epoch, the optimizer's variables, the
records of all epochs and the decisions drawn from them. Order, augmentation and dropout are drawn from the
seed and the number of the epoch, so there is no other random state. A state is NumPy's own archive: Keras'
`save_weights` writes to local paths only, while bytes go to any storage. Equal states give equal bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import io
import json
import logging
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from brain_mri.models.progress import EpochRecord, Progress, StageRecord

if TYPE_CHECKING:
    from brain_mri.models.features import Features
    from brain_mri.models.recipe import Recipe
    from brain_mri.models.shards import Shards

log = logging.getLogger(__name__)

KEPT = 2
"""States that are kept: the latest, and one before it."""

INITIAL = "initial.npz"
"""Name of the weights with which workers begin that have no weights file of their own."""

_ARRAYS = ("weights", "optimizer", "best_weights")
_STATE = re.compile(r"state-(\d+)-(\d+)\.npz")


class Checkpoints(Protocol):
    """A picklable handle to a store of named bytes; `brain_mri.datasets.CheckpointStore` is one."""

    def save(self, name: str, content: bytes) -> None:
        """Keep the content under a name, in place of what had it before."""
        ...

    def load(self, name: str) -> bytes | None:
        """Return what was kept under a name, or None."""
        ...

    def names(self) -> list[str]:
        """Names of all that is kept."""
        ...

    def remove(self, name: str) -> None:
        """Forget what was kept under a name."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class NoCheckpoints:
    """A store that keeps nothing: of trainings that are begun anew rather than continued."""

    def save(self, name: str, content: bytes) -> None:
        """Forget it."""

    def load(self, name: str) -> bytes | None:
        """There is nothing."""
        return None

    def names(self) -> list[str]:
        """There are none."""
        return []

    def remove(self, name: str) -> None:
        """There is nothing."""

    def clear(self) -> None:
        """There is nothing."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Where a training stands after an epoch.

    Attributes:
        key: Of what is trained, from :func:`training_key`.
        stages: Records of the stages before this one.
        epochs: Records of the epochs of this stage, the latest last.
        progress: What was decided after the latest.
        seconds: That the training has taken so far, breaks between its runs left out.
        weights: Of the network, as `get_weights()` lists them.
        optimizer: Values of the optimizer's variables, in their order.
        best_weights: Of the best epoch of all so far.
    """

    key: str
    stages: tuple[StageRecord, ...]
    epochs: tuple[EpochRecord, ...]
    progress: Progress
    seconds: float
    weights: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    best_weights: list[NDArray[Any]]

    @property
    def name(self) -> str:
        """Name in the store: by stage and epoch, both from 1."""
        return f"state-{len(self.stages) + 1:02d}-{len(self.epochs):04d}.npz"

    def to_bytes(self) -> bytes:
        """All of it as one archive."""
        facts = {
            "key": self.key,
            "stages": self.stages,
            "epochs": self.epochs,
            "progress": asdict(self.progress),
            "seconds": self.seconds,
            **{name: len(getattr(self, name)) for name in _ARRAYS},
        }
        arrays = {
            f"{name}_{number}": value for name in _ARRAYS for number, value in enumerate(getattr(self, name))
        }
        buffer = io.BytesIO()
        np.savez(buffer, facts=np.array(json.dumps(facts)), **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> TrainingState:
        """The state that :meth:`to_bytes` wrote.

        Raises:
            ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile: It is none.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            facts = json.loads(str(archive["facts"]))
            arrays = {
                name: [archive[f"{name}_{number}"] for number in range(facts[name])] for name in _ARRAYS
            }
        return cls(
            facts["key"],
            tuple(facts["stages"]),
            tuple(facts["epochs"]),
            Progress(**facts["progress"]),
            facts["seconds"],
            **arrays,
        )


def training_key(recipe: Recipe, train: Shards, validation: Shards, features: Features | None = None) -> str:
    """Fingerprint of all that decides about a training: data, recipe, weights, code and libraries.

    How many workers share the work is not among it, nor the machine; what was computed before, and in which
    type it is stored, is.
    """
    weights = Path(recipe.weights).expanduser() if recipe.weights else None
    # The network, the steps and the order in which images come.
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(inspect.getfile(type(train)))]
    sets = [
        [shards.preparation, shards.rows, sorted(shards.label_counts.items())]
        for shards in (train, validation)
    ]
    ingredients = [
        recipe.model_dump(mode="json"),
        _sha256(weights.read_bytes()) if weights and weights.is_file() else "",
        sets,
        {number: stage.dtype for number, stage in (features or {}).items()},
        [_sha256(path.read_bytes()) for path in sources],
        [importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")],
    ]
    return _sha256(json.dumps(ingredients, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def save_state(checkpoints: Checkpoints, state: TrainingState) -> None:
    """Keep a state, and the one before it in case this one cannot be read some day."""
    checkpoints.save(state.name, state.to_bytes())
    for name in _states(checkpoints.names())[KEPT:]:
        checkpoints.remove(name)


def find_state(checkpoints: Checkpoints, key: str) -> TrainingState | None:
    """The latest state of a training that can be read; None where there is none.

    States of another training are removed, which is said: two trainings cannot share a store.
    """
    others = False
    for name in _states(checkpoints.names()):
        content = checkpoints.load(name)
        try:
            state = TrainingState.from_bytes(content or b"")
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            log.warning("The checkpoint %s cannot be read and is passed over: %s", name, error)
            continue
        if state.key == key:
            return state
        others = True
        checkpoints.remove(name)
    if others:
        log.info("Data, recipe or code are others than those of the last checkpoint: training starts anew.")
    return None


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
    """Turn the bytes of :func:`pack_weights` into arrays for `model.set_weights`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return [archive[f"arr_{number}"] for number in range(len(archive.files))]


def _states(names: Sequence[str]) -> list[str]:
    """Names of states, the latest first."""
    return sorted((name for name in names if _STATE.fullmatch(name)), reverse=True)
