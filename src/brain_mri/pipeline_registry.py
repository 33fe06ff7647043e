"""The pipelines that `kedro run --pipelines` knows."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from brain_mri.pipelines import ingestion, preprocessing, reporting, training


def register_pipelines() -> dict[str, Pipeline]:
    """Each pipeline by its name; the default is all four in turn."""
    pipelines = {
        "ingestion": ingestion.create_pipeline(),
        "preprocessing": preprocessing.create_pipeline(),
        "training": training.create_pipeline(),
        "reporting": reporting.create_pipeline(),
    }
    return {**pipelines, "__default__": sum(pipelines.values(), Pipeline([]))}
