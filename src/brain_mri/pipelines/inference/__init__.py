"""From any number of files and a trained classifier to a table of scores."""

from __future__ import annotations

from brain_mri.pipelines.inference.pipeline import create_pipeline

__all__ = ["create_pipeline"]
