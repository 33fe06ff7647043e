"""All parameter sections and their types; what no section knows is refused before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from brain_mri.pipelines.audit.parameters import AuditParameters
from brain_mri.pipelines.enhancement.parameters import EnhancementParameters
from brain_mri.pipelines.inference.parameters import InferenceParameters
from brain_mri.pipelines.ingestion.parameters import IngestionParameters
from brain_mri.pipelines.preprocessing.parameters import PreprocessingParameters
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from brain_mri.pipelines.training.parameters import TrainingParameters
from brain_mri.pipelines.tuning.parameters import TuningParameters


class RunParameters(BaseModel):
    """What `params:run` holds.

    Attributes:
        allow_stale: Build on outputs that other parameters or another source made.
        break_lock: Take over a lock that another run holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_stale: bool = Field(default=False)
    break_lock: bool = Field(default=False)


SECTIONS: dict[str, type[BaseModel]] = {
    "ingestion": IngestionParameters,
    "preprocessing": PreprocessingParameters,
    "training": TrainingParameters,
    "tuning": TuningParameters,
    "reporting": ReportingParameters,
    "audit": AuditParameters,
    "inference": InferenceParameters,
    "enhancement": EnhancementParameters,
    "run": RunParameters,
}


class ParameterError(ValueError):
    """Parameters that nothing reads (Kedro would accept them in silence), or values that do not fit."""


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check that every parameter has a reader and every value its type.

    Args:
        parameters: All sections, as configuration files and `--params` give them together.

    Raises:
        ParameterError: Listing each unknown name with the nearest one that exists, and each value that does
            not fit.

    Example:
        >>> check_parameters({"training": {"backbon": "compact"}})
        Traceback (most recent call last):
        ParameterError: Unknown parameter training.backbon: did you mean training.backbone? …
    """
    known = [*SECTIONS, *(name for section, model in SECTIONS.items() for name in _names(model, section))]
    problems = []
    for name in _given(parameters, SECTIONS):
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            problems.append(
                f"Unknown parameter {name}" + (f": did you mean {nearest[0]}?" if nearest else ".")
            )
    for section, model in SECTIONS.items():
        try:
            model.model_validate(parameters.get(section, {}))
        except ValidationError as error:
            problems += [
                f"Parameter {'.'.join(map(str, (section, *found['loc'])))}: {found['msg']} "
                f"(given: {found['input']!r})."
                for found in error.errors()
                if found["type"] != "extra_forbidden"  # named above, with the nearest match
            ]
    if problems:
        raise ParameterError(
            "\n".join(problems) + "\nThe parameters and what they mean stand in conf/base/parameters_*.yml."
        )


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Dotted names of all fields of a model and of the models in it."""
    for name, field in model.model_fields.items():
        yield f"{prefix}.{name}"
        nested = _model_of(field.annotation)
        if nested:
            yield from _names(nested, f"{prefix}.{name}")


def _given(
    values: Mapping[str, Any], models: Mapping[str, type[BaseModel]], prefix: str = ""
) -> Iterator[str]:
    """Dotted names of all given values, as deep as there are models to compare them with."""
    for name, value in values.items():
        yield f"{prefix}{name}"
        model = models.get(name)
        if model is not None and isinstance(value, Mapping):
            nested = {
                key: inner
                for key, field in model.model_fields.items()
                if (inner := _model_of(field.annotation))
            }
            yield from _given(value, nested, f"{prefix}{name}.")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `Model` or `Model | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
