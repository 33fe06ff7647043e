"""Wiring of the pipeline `tuning`."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from brain_mri.pipelines.tuning.nodes import describe_search, draw_search, search


def create_pipeline() -> Pipeline:
    """Try configurations on `model_inputs_train` and compare them on `model_inputs_validation`."""
    return Pipeline(
        [
            node(
                search,
                inputs=[
                    "model_inputs_train@shards",
                    "model_inputs_validation@shards",
                    "tuning_store",
                    "feature_cache",
                    "split_metadata",
                    "params:tuning",
                    "params:training",
                ],
                outputs=["tuning_trials", "best_config", "tuning_importances"],
                name="search",
                tags="tuning",
            ),
            node(
                draw_search,
                inputs=["tuning_trials", "tuning_importances", "split_metadata", "params:tuning"],
                outputs=["tuning_history", "tuning_coordinates", "tuning_importance"],
                name="draw_search",
                tags="tuning",
            ),
            node(
                describe_search,
                inputs=[
                    "tuning_trials",
                    "best_config",
                    "tuning_history",
                    "tuning_coordinates",
                    "tuning_importance",
                ],
                outputs="section_tuning",
                name="describe_search",
                tags="tuning",
            ),
        ]
    )
