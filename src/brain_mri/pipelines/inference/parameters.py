"""Parameters of the pipeline `inference`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class InferenceParameters(BaseModel):
    """What is scored, and where the table goes.

    Attributes:
        source: A file, a folder of any depth, or several of them; local paths or fsspec URLs.
        output: Where the table of scores goes, a local path or fsspec URL; None for `07_model_output` under
            the storage root. The catalog takes it from `--params` alone.

    Example:
        >>> InferenceParameters(source="/scans/new.jpg").sources()
        ('/scans/new.jpg',)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    output: str | None = None

    def sources(self) -> tuple[str, ...]:
        """All sources; empty where none is named."""
        if self.source is None:
            return ()
        return (self.source,) if isinstance(self.source, str) else self.source
