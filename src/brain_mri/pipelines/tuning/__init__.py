"""From model inputs to the configuration that does best on validation scans."""

from __future__ import annotations

from brain_mri.pipelines.tuning.pipeline import create_pipeline

__all__ = ["create_pipeline"]
