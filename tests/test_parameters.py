"""Parameters that nothing reads and values that do not fit are refused together, before anything runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from brain_mri.parameters import SECTIONS, ParameterError, check_parameters


def test_the_files_hold_every_parameter_and_no_other(parameters: dict[str, Any]) -> None:
    check_parameters(parameters)
    assert parameters.keys() == SECTIONS.keys()
    for section, model in SECTIONS.items():
        assert parameters[section].keys() == model.model_fields.keys(), section


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("trainin.seed", "training"),
        ("training.bakbone", "training.backbone"),
        ("ingestion.phantom.image", "ingestion.phantom.images"),
        ("preprocessing.imagesize", "preprocessing.image_size"),
    ],
)
def test_a_mistyped_name_is_refused_with_the_nearest(
    parameters: dict[str, Any], path: str, nearest: str
) -> None:
    changed: dict[str, Any] = copy.deepcopy(parameters)
    *sections, name = path.split(".")
    inner = changed
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = 1
    with pytest.raises(ParameterError, match=rf"did you mean {nearest}\?"):
        check_parameters(changed)


def test_all_problems_are_told_at_once(parameters: dict[str, Any]) -> None:
    parameters["ingestion"]["seed"] = "many"
    parameters["ingestion"]["split_ratios"] = {"train": 0.9, "validation": 0.2, "test": 0.1}
    parameters["training"]["backbone"] = "compct"
    parameters["nonsense"] = 1
    with pytest.raises(ParameterError) as refused:
        check_parameters(parameters)
    message = str(refused.value)
    for part in (
        "ingestion.seed",
        "given: 'many'",
        "sum 1",
        "Did you mean 'compact'",
        "Unknown parameter nonsense.",
    ):
        assert part in message


def test_parameter_objects_cannot_be_changed(parameters: dict[str, Any]) -> None:
    section = SECTIONS["training"].model_validate(parameters["training"])
    with pytest.raises(ValueError, match="frozen"):
        section.seed = 3  # type: ignore[attr-defined]
