"""From a trained version and its data to what a distrustful reader wants to know."""

from __future__ import annotations

from brain_mri.pipelines.audit.pipeline import create_pipeline

__all__ = ["create_pipeline"]
