"""Wiring of the preprocessing pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from brain_mri.pipelines.preprocessing import nodes


def create_pipeline() -> Pipeline:
    """Packed scans and manifest → one set of model inputs a split, and what was measured on the way."""
    sets = ["model_inputs_train", "model_inputs_validation", "model_inputs_test"]
    return Pipeline(
        [
            node(
                nodes.prepare_scans,
                ["scans@packed", "manifest", "split_metadata", "params:preprocessing"],
                "prepared_parts",
                name="prepare_scans",
            ),
            node(
                nodes.publish_model_inputs,
                "prepared_parts",
                [f"{name}@spark" for name in sets],
                name="publish_model_inputs",
            ),
            node(
                nodes.check_model_inputs,
                [
                    "prepared_parts",
                    *(f"{name}@shards" for name in sets),
                    "split_metadata",
                    "params:preprocessing",
                ],
                "preprocessing_stats",
                name="check_model_inputs",
            ),
            node(
                nodes.draw_samples,
                ["model_inputs_train@shards", "split_metadata"],
                "sample_grid",
                name="draw_samples",
                tags="figures",
            ),
        ],
        tags="preprocessing",
    )
