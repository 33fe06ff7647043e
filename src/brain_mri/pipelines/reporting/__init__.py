"""Reporting: from a trained classifier and the test split to numbers, figures and one page."""

from brain_mri.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
