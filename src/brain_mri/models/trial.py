"""A trial: a configuration, trained and measured on validation, in a process that may be told to give up."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from brain_mri.models.checkpoints import NoCheckpoints
from brain_mri.models.loop import train_classifier
from brain_mri.models.questions import Asker
from brain_mri.models.worker import use_devices

if TYPE_CHECKING:
    from brain_mri.models.features import Features
    from brain_mri.models.progress import EpochRecord
    from brain_mri.models.recipe import Recipe
    from brain_mri.models.shards import Shards
    from brain_mri.models.together import Seat

Metric = Literal["macro_f1", "accuracy"]
Status = Literal["complete", "pruned", "failed", "lost"]


class Hopeless(Exception):  # noqa: N818 - it is a decision
    """The trial was told to give up."""


class TrialResult(NamedTuple):
    """How a trial ended.

    Attributes:
        status: "complete"; "pruned": it was told to give up; "failed": it raised an error; "lost": its
            process died.
        values: The metric after each epoch, over all stages.
        accuracy: On validation, with the weights of the epoch with the lowest validation loss.
        macro_f1: Likewise.
        loss: Likewise.
        started: When, in seconds since 1970, by the clock of its machine.
        seconds: That it took, the start of its process left out.
        worker: Machine and process.
        reason: Why it failed or was lost.
    """

    status: Status
    values: tuple[float, ...] = ()
    accuracy: float | None = None
    macro_f1: float | None = None
    loss: float | None = None
    started: float | None = None
    seconds: float = 0.0
    worker: str = ""
    reason: str = ""


def run_trial(  # noqa: PLR0917 - a partial of all but the seat is what travels
    recipe: Recipe,
    train: Shards,
    validation: Shards,
    features: Features,
    metric: Metric,
    weights: Callable[[], bytes | None] | None,
    desk: tuple[str, tuple[str, int], bytes],
    seat: Seat,
) -> TrialResult:
    """Train a configuration, in a fresh process; an error of the training is an answer too.

    Args:
        recipe: The configuration.
        train: Labelled images to learn from.
        validation: Labelled images to measure on.
        features: What frozen layers compute, by stage.
        metric: That is reported.
        weights: The content of a file of the backbone's weights, where it is to start from some: the file
            that the recipe names may not be here.
        desk: The name of the trial, and the address and the key of the desk that answers "report": from that
            name, the number of an epoch over all stages and its metric to whether to go on.
        seat: Of the worker.

    Returns:
        How it ended.

    Raises:
        OSError: Of storage, or of the way to who decides.
    """
    logging.getLogger("brain_mri").setLevel(logging.WARNING)  # epochs of many trials at once are no news
    started, clock, worker = time.time(), time.perf_counter(), f"{socket.gethostname()}:{os.getpid()}"
    records: list[EpochRecord] = []
    name, address, key = desk

    def tell(record: EpochRecord) -> None:
        records.append(record)
        if not ask("report", name, len(records), record[f"validation_{metric}"]):  # type: ignore[literal-required]
            raise Hopeless

    def result(status: Status, reason: str = "") -> TrialResult:
        values = tuple(record[f"validation_{metric}"] for record in records)  # type: ignore[literal-required]
        ended = TrialResult(
            status, values, started=started, seconds=time.perf_counter() - clock, worker=worker, reason=reason
        )
        if status == "failed" or not records:
            return ended
        best = min(records, key=lambda record: record["validation_loss"])
        return ended._replace(
            accuracy=best["validation_accuracy"], macro_f1=best["validation_macro_f1"],
            loss=best["validation_loss"],
        )  # fmt: skip

    try:
        use_devices(seat.cores, seat.gpus)
        ask = Asker(address, key)
        with tempfile.TemporaryDirectory() as folder:
            if weights is not None:
                path = Path(folder, "backbone.weights.h5")
                path.write_bytes(weights() or b"")
                recipe = recipe.model_copy(update={"weights": str(path)})
            train_classifier(recipe, train, validation, NoCheckpoints(), features, tell)
    except Hopeless:
        return result("pruned")
    except OSError:
        raise  # of storage or of the way to the driver: no configuration is to blame
    except Exception as error:
        return result("failed", f"{type(error).__name__}: {error}")
    return result("complete")
