"""Parameters of the pipeline `reporting`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ReportingParameters(BaseModel):
    """How the test split is measured and shown.

    Attributes:
        batch_size: Scans that go through the network at once.
        calibration_bins: Steps of confidence in the reliability diagram and the calibration error.
        bootstrap_replicates: Draws of duplicate groups behind the 95 % intervals.
        compare: Another version, to compare this one with on this test split; None for none.
        seed: Which test scans are shown as examples, and which groups are drawn.

    Example:
        >>> ReportingParameters().calibration_bins
        15
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: Annotated[int, Field(ge=1)] = 64
    calibration_bins: Annotated[int, Field(ge=1)] = 15
    bootstrap_replicates: Annotated[int, Field(ge=100)] = 2000
    compare: str | None = None
    seed: Annotated[int, Field(ge=0)] = 42
