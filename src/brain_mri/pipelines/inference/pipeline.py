"""Wiring of the pipeline `inference`."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from brain_mri.pipelines.inference.nodes import measure_scores, plan_scoring


def create_pipeline() -> Pipeline:
    """Score files with the latest version, and measure where their classes are known.

    Example:
        >>> sorted(create_pipeline().outputs())
        ['score_metrics']
    """
    return Pipeline(
        [
            node(
                plan_scoring,
                ["classifier", "params:ingestion", "params:inference"],
                "scores",
                name="score_files",
            ),
            node(measure_scores, "scores", "score_metrics", name="measure_scores"),
        ],
        tags="inference",
    )
