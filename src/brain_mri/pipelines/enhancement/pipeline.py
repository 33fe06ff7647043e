"""Wiring of the pipeline `enhancement`."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from brain_mri.pipelines.enhancement.nodes import (
    draw_enhancement,
    measure_enhancement,
    plan_enhancement,
    plan_shards,
)


def create_pipeline() -> Pipeline:
    """Plan shards, enhance the photographs into them, measure and draw how it went.

    Example:
        >>> sorted(create_pipeline().inputs())
        ['fundus_phantoms', 'params:enhancement']
    """
    return Pipeline(
        [
            node(plan_shards, ["fundus_phantoms", "params:enhancement"], "shard_plan", name="plan_shards"),
            node(
                plan_enhancement,
                ["shard_plan", "params:enhancement"],
                "enhanced_shards",
                name="enhance_photographs",
            ),
            node(measure_enhancement, "enhanced_shards", "enhancement_stats", name="measure_enhancement"),
            node(
                draw_enhancement,
                "enhancement_stats",
                ["enhancement_throughput", "enhancement_runtime"],
                name="draw_enhancement",
            ),
        ],
        tags="enhancement",
    )
