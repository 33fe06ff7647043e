"""Wiring of the pipeline `audit`."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from brain_mri.pipelines.audit import mirrors, nodes, protocols, robustness, shortcuts

_SPLITS = [f"model_inputs_{split}@shards" for split in ("train", "validation", "test")]


def create_pipeline() -> Pipeline:
    """Look at the latest version, its data and its test split with distrust; it trains once or twice again.

    Example:
        >>> "section_audit" in create_pipeline().outputs()
        True
    """
    return Pipeline(
        [
            node(
                robustness.measure_robustness,
                ["classifier", "model_inputs_test@shards", "params:audit"],
                "audit_robustness",
                name="measure_robustness",
            ),
            node(
                robustness.measure_strangers,
                ["classifier", "predictions", "params:audit"],
                "audit_strangers",
                name="measure_strangers",
            ),
            node(robustness.measure_kinds, ["predictions", "manifest"], "audit_kinds", name="measure_kinds"),
            node(
                mirrors.measure_mirrors,
                ["classifier", "manifest", "scans@packed", "predictions", "params:audit"],
                "audit_mirrors",
                name="measure_mirrors",
            ),
            node(
                shortcuts.probe_shortcuts,
                ["manifest", "model_inputs_train@shards", "model_inputs_test@shards", "params:audit"],
                "audit_probes",
                name="probe_shortcuts",
            ),
            node(
                protocols.train_on_shuffled_labels,
                ["classifier", "manifest", *_SPLITS, "params:audit"],
                "audit_shuffled",
                name="train_on_shuffled_labels",
            ),
            node(
                protocols.compare_protocols,
                ["classifier", "source_files", "manifest", "predictions", *_SPLITS, "params:audit"],
                "audit_protocols",
                name="compare_protocols",
            ),
            node(
                nodes.draw_audit,
                ["audit_robustness", "audit_strangers", "split_metadata"],
                ["audit_robustness_figure", "audit_strangers_figure"],
                name="draw_audit",
            ),
            node(
                nodes.describe_audit,
                [
                    "classifier",
                    "audit_robustness",
                    "audit_strangers",
                    "audit_kinds",
                    "audit_probes",
                    "audit_shuffled",
                    "audit_protocols",
                    "audit_mirrors",
                    "audit_robustness_figure",
                    "audit_strangers_figure",
                ],
                "section_audit",
                name="describe_audit",
            ),
        ],
        tags="audit",
    )
