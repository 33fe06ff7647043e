"""What `benchmarks/training.py` rests on: it reads the lines that are written, and its sums are right."""

from __future__ import annotations

import logging

import pytest

from benchmarks.training import STAGES, Timeline, epoch_of, section, show
from brain_mri.models.loop import _log_epoch
from brain_mri.models.progress import EpochRecord, Progress
from brain_mri.models.recipe import make_recipe

TIMELINE = Timeline(
    "cached",
    "resnet50",
    [(STAGES[0], 20.0, 0.80), (STAGES[0], 22.0, 0.91), (STAGES[1], 50.0, 0.90), (STAGES[1], 60.0, 0.95)],
    seconds=75.0,
    peak_bytes=2**31,
    worker_bytes=2**30,
    images=100,
)


def test_lines_of_the_loop_are_read(caplog: pytest.LogCaptureFixture) -> None:
    recipe = make_recipe(
        "baseline", backbone="resnet50", weights=None, image_size=64, classes=("a", "b"), seed=1
    )
    record: EpochRecord = {
        "epoch": 2, "loss": 0.5, "accuracy": 0.8, "validation_loss": 0.4, "validation_accuracy": 0.9375,
        "validation_macro_f1": 0.93, "learning_rate": 1e-3, "images_per_second": 50.0, "seconds": 3.0,
    }  # fmt: skip
    for stage in recipe.stages:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="brain_mri"):
            _log_epoch(stage, record, Progress(1e-3), stops=False, lowered=False)
        assert epoch_of(caplog.messages[0]) == (stage.name, pytest.approx(0.9375, abs=1e-3))
    assert [stage.name for stage in recipe.stages] == list(STAGES)


def test_lines_of_the_plain_way_are_read_and_others_are_not() -> None:
    assert epoch_of("Stage 'frozen base' epoch 3: validation accuracy 0.9123\n") == ("frozen base", 0.9123)
    assert epoch_of("Stage 'frozen base': best epoch 2, validation loss 0.2") is None


def test_a_stage_begins_where_the_one_before_ended() -> None:
    assert [TIMELINE.stage_seconds(stage) for stage in STAGES] == [22.0, 38.0]
    assert [TIMELINE.epoch_seconds(stage) for stage in STAGES] == [2.0, 10.0]
    assert [TIMELINE.count(stage) for stage in STAGES] == [2, 2]


def test_a_mark_is_reached_with_the_first_epoch_above_it() -> None:
    assert [TIMELINE.seconds_to(mark) for mark in (0.9, 0.94, 0.96)] == [22.0, 60.0, None]
    assert TIMELINE.accuracy == 0.95


def test_the_table_has_a_cell_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    show([TIMELINE], TIMELINE)
    row = capsys.readouterr().out.splitlines()[-1].split()
    expected = "cached 2+2 22 50.0 38 10.0 75 1.00 2.0 1.0 0.950 22 60 never"
    assert row == expected.split()


def test_the_section_of_the_report_has_a_row_a_way() -> None:
    made = section([TIMELINE, TIMELINE], 200)
    assert [row[0] for row in made["tables"][0]["rows"]] == ["cached", "cached"]
    assert all(len(row) == len(made["tables"][0]["columns"]) for row in made["tables"][0]["rows"])
    assert made["figures"][0]["png"].startswith("iVBOR")
