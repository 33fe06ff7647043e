"""Parameters of the pipeline `enhancement`."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.fundus import CLIP, DARK, TILES
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
        opening: Behind the adaptive threshold: side of the cross that opens its map, odd, in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = _VESSELS.method
    high: Annotated[float, Field(gt=0, lt=1)] = _VESSELS.high
    low: Annotated[float, Field(gt=0, lt=1)] = _VESSELS.low
    smallest: Annotated[int, Field(ge=0)] = _VESSELS.smallest
    block: Annotated[int, Field(ge=3)] = _VESSELS.block
    offset: float = _VESSELS.offset
    opening: Annotated[int, Field(ge=1)] = _VESSELS.opening

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}: low has to be at most high")
        for name, side in (("block", self.block), ("opening", self.opening)):
            if side % 2 == 0:
                raise ValueError(f"{name} is {side}: it has to be odd, so that a pixel lies in the middle")
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
        include: Patterns, of which a path below the source fits one, such as `*.jpg`: a star stands for any
            text, slashes too, and case does not matter.
        exclude: Patterns, of which it fits none.
        shard_mib: Of input that a shard is planned to hold. None is 256, and for what would make fewer than
            64 shards as many times half of it as it takes, so that many cores have work; but 1/4 at least.
        dark: What is darker than this share of the bright parts lies outside the field of view.
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
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    shard_mib: Annotated[float, Field(gt=0)] | None = None
    dark: Annotated[float, Field(gt=0, lt=1)] = DARK
    clip: Annotated[float, Field(gt=0)] = CLIP
    tiles: Annotated[int, Field(ge=1)] = TILES
    vessels: VesselParameters = VesselParameters()
    limits: PhotographLimits = PhotographLimits()

    @field_validator("include", "exclude", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    def shard_bytes(self, total: int) -> int:
        """Bytes of input that a shard is planned to hold, of so many of all files.

        Example:
            >>> EnhancementParameters().shard_bytes(10**12) == 256 * 2**20
            True
        """
        if self.shard_mib is not None:
            return round(self.shard_mib * 2**20)
        # A power of two: photographs that are added later move no shard but the last, nearly always.
        return min(256 * 2**20, max(1 << (max(total // 64, 1).bit_length() - 1), 2**18))

    def options(self) -> EnhanceOptions:
        """As the steps take them."""
        return EnhanceOptions(self.dark, self.clip, self.tiles, VesselOptions(**self.vessels.model_dump()))
