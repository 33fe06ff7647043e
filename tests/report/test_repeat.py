from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml
from kedro.framework.cli.project import run as kedro_run

from brain_mri.report.repeat import repeat_command, run_settings, unwritable_settings


@pytest.fixture
def split() -> dict[str, Any]:
    return {
        "source": {"synthetic": False, "url": "/scans/of mine"},
        "parameters": {
            "source": None,
            "classes": None,
            "test_split": "grouped",
            "seed": 4711,
            "max_refused_share": 0.2,
            "limits": {"min_side": 40},
            "phantom": {"images": 2000, "seed": 20},
        },
    }


def settings_of(split: dict[str, Any], **model: Any) -> dict[str, Any]:
    return run_settings(
        split,
        {"parameters": {"image_size": 160, "clahe": True}},
        {
            "backbone": "mobilenetv2",
            "weights": "imagenet",
            "recipe": "baseline",
            "seed": 815,
            "training_parameters": {"backbone": "auto", "weights": "auto", "epochs": 3, "seed": 815},
            **model,
        },
    )


def read_by_kedro(command: str) -> dict[str, Any]:
    """Parameters by section and name, as `kedro run` in a shell reads them."""
    words = shlex.split(command)
    assert words[:2] == ["kedro", "run"]
    return dict(kedro_run.make_context("run", words[2:]).params["params"])


def test_the_command_says_what_was_recorded_and_decided(split: dict[str, Any]) -> None:
    command = repeat_command(settings_of(split))
    assert command == (
        "kedro run --params='ingestion.source=/scans/of mine,ingestion.classes=null,"
        "ingestion.test_split=grouped,ingestion.seed=4711,ingestion.max_refused_share=0.2,"
        "ingestion.limits.min_side=40,preprocessing.image_size=160,preprocessing.clahe=true,"
        "training.backbone=mobilenetv2,training.weights=imagenet,training.epochs=3,training.seed=815,"
        "training.recipe=baseline'"
    )
    assert read_by_kedro(command) == {
        "ingestion": {
            "source": "/scans/of mine",
            "classes": None,
            "test_split": "grouped",
            "seed": 4711,
            "max_refused_share": 0.2,
            "limits": {"min_side": 40},
        },
        "preprocessing": {"image_size": 160, "clahe": True},
        "training": {
            "backbone": "mobilenetv2",
            "weights": "imagenet",
            "epochs": 3,
            "seed": 815,
            "recipe": "baseline",
        },
    }


def test_a_random_start_is_said(split: dict[str, Any]) -> None:
    command = repeat_command(settings_of(split, weights=None))
    assert ",training.weights=null," in command
    assert read_by_kedro(command)["training"]["weights"] is None


def test_phantoms_are_drawn_again_where_the_run_drew_them(split: dict[str, Any]) -> None:
    split["source"] = {"synthetic": True, "url": "data/01_raw/phantom"}
    ingestion = read_by_kedro(repeat_command(settings_of(split)))["ingestion"]
    assert ingestion["source"] is None
    assert ingestion["phantom"] == {"images": 2000, "seed": 20}
    split["parameters"]["source"] = "data/01_raw/phantom"  # named, so that the run drew none
    ingestion = read_by_kedro(repeat_command(settings_of(split)))["ingestion"]
    assert ingestion["source"] == "data/01_raw/phantom"
    assert "phantom" not in ingestion


@pytest.mark.parametrize(
    "source",
    [
        "/plain",
        '/it\'s "quoted"',
        "/scans #1",
        "12",
        "null",
        "yes",
        "/a=b",
        "x: y",
        " /a ",
        "hdfs://nn:8020/a",
    ],
)
def test_kedro_reads_every_name_as_it_was_meant(split: dict[str, Any], source: str) -> None:
    split["source"]["url"] = source
    assert read_by_kedro(repeat_command(settings_of(split)))["ingestion"]["source"] == source


def test_what_a_command_line_cannot_carry_is_given_as_a_file(split: dict[str, Any]) -> None:
    split["source"]["url"] = "/scans, mine"
    split["parameters"]["classes"] = ["normal", {"tumour": ["yes"]}]
    settings = settings_of(split)
    given = read_by_kedro(repeat_command(settings))["ingestion"]
    assert not {"source", "classes"} & set(given)
    assert yaml.safe_load(unwritable_settings(settings)) == {
        "ingestion": {"source": "/scans, mine", "classes": ["normal", {"tumour": ["yes"]}]}
    }
    assert unwritable_settings({"ingestion.seed": 1}) == ""
