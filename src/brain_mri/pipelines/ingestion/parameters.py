"""Typed parameters of the ingestion pipeline."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from brain_mri.cohort.classes import DEFAULT_CLASSES, ClassSet
from brain_mri.cohort.split import check_ratios
from brain_mri.imaging.decode import DecodeLimits

_STRICT = ConfigDict(frozen=True, extra="forbid")


class PhantomParameters(BaseModel):
    """The synthetic scans that stand in where no others are given."""

    model_config = _STRICT

    images: int = Field(ge=40, description="Files to draw, copies and damaged ones included.")
    seed: int = Field(ge=0, description="The same seed draws the same bytes.")


class LimitParameters(BaseModel):
    """What is refused; see `imaging.decode.DecodeLimits`."""

    model_config = _STRICT

    max_bytes: int = Field(gt=0)
    max_pixels: int = Field(gt=0)
    min_side: int = Field(gt=0)
    min_contrast: int = Field(ge=0, le=255)

    def limits(self) -> DecodeLimits:
        """The same as the plain object that `imaging` takes."""
        return DecodeLimits(**self.model_dump())


class SplitRatios(BaseModel):
    """Shares of the three splits; their sum is 1."""

    model_config = _STRICT

    train: float
    validation: float
    test: float

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        check_ratios(self.as_tuple())
        return self

    def as_tuple(self) -> tuple[float, float, float]:
        """Train, validation, test."""
        return self.train, self.validation, self.test


class IngestionParameters(BaseModel):
    """What `params:ingestion` holds.

    Attributes:
        source: Folder or table of scans (local path or fsspec URL); None to find it.
        append: Whether the source is added to the scans that are there, which keep their split.
        classes: Class names, or names with their aliases; None for the four tumour classes.
        test_split: `grouped` draws the test split; `official` keeps the source's own test half.
        split_ratios: Shares of train, validation and test.
        seed: Of the split.
        mirrored_copies: Whether a near copy of a scan's mirror image counts as one of the scan.
        max_refused_share: A run stops when more than this share of the files is refused.
        keep_original_files: Whether the files of the source are also stored as they are.
        limits: What is refused.
        phantom: The synthetic scans.
    """

    model_config = _STRICT

    source: str | None
    append: bool
    classes: list[str | dict[str, list[str]]] | None
    test_split: Literal["grouped", "official"]
    split_ratios: SplitRatios
    seed: int = Field(ge=0)
    mirrored_copies: bool
    max_refused_share: float = Field(ge=0, le=1)
    keep_original_files: bool
    limits: LimitParameters
    phantom: PhantomParameters

    def class_set(self) -> ClassSet:
        """The classes of the run."""
        return DEFAULT_CLASSES if self.classes is None else ClassSet.from_entries(self.classes)
