"""From any number of photographs of the retina to enhanced pictures and vessel maps in TAR shards."""

from __future__ import annotations

from brain_mri.pipelines.enhancement.pipeline import create_pipeline

__all__ = ["create_pipeline"]
