"""From model inputs to a published version of the classifier."""

from __future__ import annotations

from brain_mri.pipelines.training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
