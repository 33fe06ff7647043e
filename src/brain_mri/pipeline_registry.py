"""The pipelines that `kedro run --pipelines` knows."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from brain_mri.pipelines import (
    audit,
    enhancement,
    inference,
    ingestion,
    preprocessing,
    reporting,
    training,
    tuning,
)


def register_pipelines() -> dict[str, Pipeline]:
    """Each pipeline by its name; the default is what leads from scans to a report, in turn."""
    pipelines = {
        "ingestion": ingestion.create_pipeline(),
        "preprocessing": preprocessing.create_pipeline(),
        "training": training.create_pipeline(),
        "reporting": reporting.create_pipeline(),
    }
    default = sum(pipelines.values(), Pipeline([]))
    return {
        **pipelines,
        "tuning": tuning.create_pipeline(),
        "audit": audit.create_pipeline(),
        "inference": inference.create_pipeline(),
        "enhancement": enhancement.create_pipeline(),
        "__default__": default,
    }
