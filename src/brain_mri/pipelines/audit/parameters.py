"""Parameters of the pipeline `audit`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class AuditParameters(BaseModel):
    """How hard a version is looked at.

    Attributes:
        epochs: A limit on the epochs of each stage of the trainings that an audit does; None for as many as
            the version had.
        scans: So many scans of a set are held in memory at most.
        robustness_scans: So many test scans are spoilt in every way.
        foreign: A folder of pictures that are no brain MRI, to see whether they are refused; None for made
            ones alone.
        seed: Of labels, draws and noise.

    Example:
        >>> AuditParameters().robustness_scans
        500
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[int, Field(ge=1)] | None = None
    scans: Annotated[int, Field(ge=100)] = 20_000
    robustness_scans: Annotated[int, Field(ge=20)] = 500
    foreign: str | None = None
    seed: Annotated[int, Field(ge=0)] = 42
