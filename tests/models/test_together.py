"""Several workers train one network, on real Spark tasks: the same as one, also when one of them dies."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest

from brain_mri.datasets import CheckpointStore
from brain_mri.datasets.shards import ShardSet
from brain_mri.models.loop import TrainingHistory, train_classifier
from brain_mri.models.passes import TrainingDiverged
from brain_mri.models.recipe import HeadBlock, Recipe
from brain_mri.models.shards import ArrayShards
from brain_mri.models.together import train_together
from brain_mri.spark.processes import Seat
from brain_mri.spark.together import TogetherLauncher
from tests.spark_workers import running_workers
from tests.stored_shards import store

Trained = tuple[Any, TrainingHistory]

pytestmark = [pytest.mark.spark, pytest.mark.tensorflow]

MAX_DIFFERENCE = 1e-5
"""Of losses and weights, absolute; they are of the order of one."""


@pytest.fixture(scope="module")
def stored(
    train: ArrayShards, validation: ArrayShards, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ShardSet, ShardSet]:
    """Both sets on disk; 49 rows leave one for the last batch, so most workers have none of it."""
    folder = tmp_path_factory.mktemp("shards")
    uneven = ArrayShards(train.pixels[:49], train.labels[:49], train.classes)
    return store(uneven, str(folder / "train"), 13), store(validation, str(folder / "validation"), 13)


@pytest.fixture
def stores(tmp_path: Path) -> Callable[[str], CheckpointStore]:
    """Stores by name."""
    return lambda name: CheckpointStore(str(tmp_path / name))


def compare(one: Trained, other: Trained) -> float:
    """The largest difference of losses, accuracies and weights."""
    worst = 0.0
    for stage, another in zip(one[1]["stages"], other[1]["stages"], strict=True):
        for epoch, same in zip(stage["epochs"], another["epochs"], strict=True):
            for name in ("loss", "accuracy", "validation_loss", "validation_accuracy"):
                worst = max(worst, abs(epoch[name] - same[name]))  # type: ignore[literal-required]
    for weight, same_weight in zip(one[0].get_weights(), other[0].get_weights(), strict=True):
        worst = max(worst, float(np.abs(weight - same_weight).max()))
    return worst


@pytest.mark.slow
def test_a_single_worker_equals_this_process(
    spark: Any,
    recipe: Recipe,
    stored: tuple[ShardSet, ShardSet],
    stores: Callable[[str], CheckpointStore],
) -> None:
    alone = train_classifier(recipe, *stored, stores("alone"))
    together = train_together(recipe, *stored, stores("together"), TogetherLauncher(1))
    assert compare(alone, together) < MAX_DIFFERENCE


THREE_WORKERS = """
import pickle, sys
from brain_mri.models.together import train_together
from brain_mri.spark import session
from brain_mri.spark.together import TogetherLauncher

if __name__ == "__main__":
    with open(sys.argv[1], "rb") as orders:
        arguments = pickle.load(orders)
    session.configure({"spark.master": "local[3]", "spark.ui.enabled": False})
    model, history = train_together(*arguments, TogetherLauncher(3))
    with open(sys.argv[1] + ".result", "wb") as result:
        pickle.dump((model.get_weights(), history), result)
"""


class Weights(NamedTuple):
    """What is left of a network that another process trained."""

    weights: list[Any]

    def get_weights(self) -> list[Any]:
        return self.weights


@pytest.mark.slow
def test_the_batch_norm_of_a_head_is_that_of_all_shares(
    spark: Any, recipe: Recipe, stored: tuple[ShardSet, ShardSet], stores: Callable[[str], CheckpointStore]
) -> None:
    """Its sums are added in another order, and what they are divided by is small in a batch of 16."""
    head = (HeadBlock(units=32, batch_norm=True, dropout=0.3),)
    normalised = recipe.model_copy(update={"head": head})
    alone = train_classifier(normalised, *stored, stores("alone"))
    together = train_together(normalised, *stored, stores("together"), TogetherLauncher(2))
    assert compare(alone, together) < 1e-3


@pytest.mark.slow
def test_three_workers_equal_one(
    recipe: Recipe,
    stored: tuple[ShardSet, ShardSet],
    stores: Callable[[str], CheckpointStore],
    tmp_path: Path,
) -> None:
    """On a session of three slots, however many cores there are."""
    (tmp_path / "orders").write_bytes(pickle.dumps((recipe, *stored, stores("together"))))
    (tmp_path / "program.py").write_text(THREE_WORKERS)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "orders")]
    subprocess.run(command, check=True, timeout=300)
    weights, history = pickle.loads((tmp_path / "orders.result").read_bytes())
    alone = train_classifier(recipe, *stored, stores("alone"))
    assert compare(alone, (Weights(weights), history)) < MAX_DIFFERENCE


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_workers_equal_one_and_a_killed_one_costs_an_epoch_and_changes_nothing(  # noqa: PLR0917 - fixtures
    spark: Any,
    recipe: Recipe,
    stored: tuple[ShardSet, ShardSet],
    stores: Callable[[str], CheckpointStore],
    caplog: pytest.LogCaptureFixture,
    victim: int,
) -> None:
    alone = train_classifier(recipe, *stored, stores("alone"))
    undisturbed = train_together(recipe, *stored, stores("undisturbed"), TogetherLauncher(2))
    assert compare(alone, undisturbed) < MAX_DIFFERENCE
    disturbed = stores("disturbed")
    killed: list[list[str]] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not has_state(disturbed, 1) and time.monotonic() < deadline:
            time.sleep(0.001)
        (chosen,) = (process for process in running_workers() if rank_of(process) == victim)
        chosen.kill()
        killed.append(disturbed.names())

    killing = threading.Thread(target=kill)
    killing.start()
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        together = train_together(recipe, *stored, disturbed, TogetherLauncher(2))
    killing.join()
    assert killed == [["initial.npz", "state-01-0001.npz"]], "within the second epoch"
    assert any(message.startswith(f"Worker {victim} on ") for message in caplog.messages)
    assert "Going on after epoch 1 of stage 'from scratch', from the last checkpoint." in caplog.messages
    assert compare(undisturbed, together) == 0


@pytest.mark.slow
def test_a_training_of_one_process_is_continued_by_several(
    spark: Any,
    recipe: Recipe,
    stored: tuple[ShardSet, ShardSet],
    stores: Callable[[str], CheckpointStore],
    caplog: pytest.LogCaptureFixture,
) -> None:
    alone = train_classifier(recipe, *stored, stores("alone"))
    stores("alone").remove("state-01-0002.npz")
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        together = train_together(recipe, *stored, stores("alone"), TogetherLauncher(2))
    assert "Going on after epoch 1 of stage 'from scratch', from the last checkpoint." in caplog.messages
    assert compare(alone, together) < MAX_DIFFERENCE


def has_state(store: CheckpointStore, epoch: int) -> bool:
    return f"state-01-{epoch:04d}.npz" in store.names()


def rank_of(process: psutil.Process) -> int:
    """The number of a worker, from the orders in the folder that its command line names."""
    seat: Seat = pickle.loads((Path(process.cmdline()[-1]) / "seat").read_bytes())
    return seat.rank


@pytest.mark.slow
def test_what_diverges_in_workers_is_raised_here(
    spark: Any,
    recipe: Recipe,
    stored: tuple[ShardSet, ShardSet],
    stores: Callable[[str], CheckpointStore],
) -> None:
    stage = recipe.stages[0].model_copy(update={"learning_rate": 1e38})
    absurd = recipe.model_copy(update={"stages": (stage,)})
    with pytest.raises(TrainingDiverged, match=r"stage 'from scratch', epoch 1\..*1e\+38"):
        train_together(absurd, *stored, stores("absurd"), TogetherLauncher(2))
