"""Parameters of the pipeline `enhancement`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.photograph import PHOTOGRAPH_LIMITS
from brain_mri.imaging.retina import EnhanceOptions
from brain_mri.imaging.vessels import Method, VesselOptions

_VESSELS = VesselOptions()


class VesselParameters(BaseModel):
    """How vessels are found; see :class:`brain_mri.imaging.vessels.VesselOptions`.

    Attributes:
        method: "network" or "threshold", the plain chain.
        high: Likeness that a vessel reaches somewhere.
        low: Likeness that all of its pixels reach.
        smallest: Pixels of a piece, where the field of view is 540 pixels wide.
        block: Of the adaptive threshold: side of the window, odd, in pixels.
        offset: Of the adaptive threshold: grey levels that a vessel is darker than its window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = _VESSELS.method
    high: Annotated[float, Field(gt=0, lt=1)] = _VESSELS.high
    low: Annotated[float, Field(gt=0, lt=1)] = _VESSELS.low
    smallest: Annotated[int, Field(ge=0)] = _VESSELS.smallest
    block: Annotated[int, Field(ge=3)] = _VESSELS.block
    offset: float = _VESSELS.offset

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}: low has to be at most high")
        if self.block % 2 == 0:
            raise ValueError(f"block is {self.block}: it has to be odd, so that a pixel lies in the middle")
        return self


class PhotographLimits(BaseModel):
    """What is refused; see :class:`brain_mri.imaging.decode.DecodeLimits`.

    Attributes:
        max_bytes: Longest file.
        max_pixels: Largest width × height.
        min_side: Shortest side in pixels.
        min_contrast: Smallest difference of grey levels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: Annotated[int, Field(gt=0)] = PHOTOGRAPH_LIMITS.max_bytes
    max_pixels: Annotated[int, Field(gt=0)] = PHOTOGRAPH_LIMITS.max_pixels
    min_side: Annotated[int, Field(ge=8)] = PHOTOGRAPH_LIMITS.min_side
    min_contrast: Annotated[int, Field(ge=0, le=255)] = PHOTOGRAPH_LIMITS.min_contrast

    def limits(self) -> DecodeLimits:
        """As the decoder takes them."""
        return DecodeLimits(**self.model_dump())


class EnhancementParameters(BaseModel):
    """What is enhanced, how, and where it goes.

    Attributes:
        source: A folder of any depth; a local path or fsspec URL (`hdfs:///…`, `s3://…`, `gs://…`). None
            draws phantoms.
        output: Where shards go, likewise; None for `07_model_output` under the storage root. The catalog
            takes it from `--params` alone.
        phantoms: How many photographs are drawn where there is no source.
        shard_mib: Of input that a shard is planned to hold.
        clip: Limit of the contrast, in multiples of an even histogram's bin.
        tiles: A side, whose contrast is evened on its own.
        vessels: How vessels are found.
        limits: What is refused.

    Example:
        >>> EnhancementParameters(source="/photographs").options().tiles
        8
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = None
    output: str | None = None
    phantoms: Annotated[int, Field(ge=1)] = 40
    shard_mib: Annotated[float, Field(gt=0)] = 256
    clip: Annotated[float, Field(gt=0)] = 2.0
    tiles: Annotated[int, Field(ge=1)] = 8
    vessels: VesselParameters = VesselParameters()
    limits: PhotographLimits = PhotographLimits()

    def options(self) -> EnhanceOptions:
        """As the steps take them."""
        return EnhanceOptions(self.clip, self.tiles, VesselOptions(**self.vessels.model_dump()))
