"""Typed parameters of the preprocessing pipeline."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from brain_mri.imaging.prepare import PrepareOptions


class PreprocessingParameters(BaseModel):
    """What `params:preprocessing` holds; see `imaging.prepare.PrepareOptions`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(ge=32, le=1024, description="Height and width of the model inputs in pixels.")
    crop_to_head: bool = Field(description="Cut away the dark surroundings of the head first.")
    clahe: bool = Field(description="Even the contrast out locally.")

    def options(self) -> PrepareOptions:
        """The same as the plain object that `imaging` takes."""
        return PrepareOptions(**self.model_dump())
