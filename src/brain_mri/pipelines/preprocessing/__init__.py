"""Preprocessing: packed scans to model inputs of one size, with Spark."""

from brain_mri.pipelines.preprocessing.pipeline import create_pipeline

__all__ = ["create_pipeline"]
