"""Ingestion: find the scans, inspect and pack them, keep copies together, split."""

from brain_mri.pipelines.ingestion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
