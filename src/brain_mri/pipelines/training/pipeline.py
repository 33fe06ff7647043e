"""Wiring of the pipeline `training`."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from brain_mri.pipelines.training.nodes import train_network
from brain_mri.pipelines.training.publishing import publish_classifier


def create_pipeline() -> Pipeline:
    """Train on `model_inputs_train`, then calibrate on `model_inputs_validation` and publish a version."""
    return Pipeline(
        [
            node(
                train_network,
                inputs=[
                    "model_inputs_train@shards",
                    "model_inputs_validation@shards",
                    "checkpoints",
                    "feature_cache",
                    "split_metadata",
                    "best_config",
                    "params:training",
                ],
                outputs=["trained_network", "training_log"],
                name="train_network",
                tags="training",
            ),
            node(
                publish_classifier,
                inputs=[
                    "trained_network",
                    "training_log",
                    "model_inputs_train@shards",
                    "model_inputs_validation@shards",
                    "split_metadata",
                    "params:training",
                ],
                outputs=["classifier", "training_history", "model_metadata"],
                name="publish_classifier",
                tags="training",
            ),
        ]
    )
