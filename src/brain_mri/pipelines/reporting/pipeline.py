"""Wiring of the pipeline `reporting`."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from brain_mri.pipelines.reporting import comparison, explanations, nodes, predicting, repetitions

FIGURES = (
    "class_distribution",
    "image_properties",
    "sample_grid",
    "training_history_figure",
    "confusion_matrix",
    "per_class_metrics",
    "roc_curves",
    "calibration",
    "coverage",
    "gradcam",
    "failures",
    "sample_predictions",
    "throughput_stages",
    "runtime_vs_workers",
)


def create_pipeline() -> Pipeline:
    """Predict the test split once; everything else is drawn and written from those predictions.

    Example:
        >>> "report" in create_pipeline().outputs()
        True
    """
    measured = ["classification_report", "split_metadata"]
    return Pipeline(
        [
            node(
                predicting.predict_test,
                ["classifier", "model_inputs_test@shards", "manifest", "params:reporting"],
                "predictions",
                name="predict_test",
            ),
            node(
                nodes.evaluate,
                ["predictions", "classifier", "preprocessing_stats", "params:reporting"],
                ["metrics", "classification_report"],
                name="evaluate",
            ),
            node(
                nodes.draw_training_history,
                ["classifier", "split_metadata"],
                "training_history_figure",
                name="draw_training_history",
                tags="figures",
            ),
            node(
                nodes.draw_confusion_matrix,
                measured,
                "confusion_matrix",
                name="draw_confusion_matrix",
                tags="figures",
            ),
            node(
                nodes.draw_per_class_metrics,
                measured,
                "per_class_metrics",
                name="draw_per_class_metrics",
                tags="figures",
            ),
            node(nodes.draw_roc_curves, measured, "roc_curves", name="draw_roc_curves", tags="figures"),
            node(nodes.draw_calibration, measured, "calibration", name="draw_calibration", tags="figures"),
            node(nodes.draw_coverage, measured, "coverage", name="draw_coverage", tags="figures"),
            node(
                explanations.explain_predictions,
                [
                    "predictions",
                    "classifier",
                    "model_inputs_test@shards",
                    "split_metadata",
                    "params:reporting",
                ],
                ["gradcam", "failures", "explanations"],
                name="explain_predictions",
                tags="figures",
            ),
            node(
                repetitions.compare_repetitions,
                ["classifier", "classifier_versions", "model_inputs_test@shards", "params:reporting"],
                "repetitions",
                name="compare_repetitions",
            ),
            node(
                comparison.compare_versions,
                [
                    "classifier",
                    "classifier_versions",
                    "predictions",
                    "model_inputs_test@shards",
                    "params:reporting",
                ],
                "section_comparison",
                name="compare_versions",
            ),
            node(
                nodes.draw_sample_predictions,
                ["predictions", "model_inputs_test@shards", "split_metadata", "params:reporting"],
                "sample_predictions",
                name="draw_sample_predictions",
                tags="figures",
            ),
            node(
                nodes.draw_throughput_stages,
                ["preprocessing_stats", "classifier", "split_metadata"],
                "throughput_stages",
                name="draw_throughput_stages",
                tags="figures",
            ),
            node(
                nodes.draw_runtime_vs_workers,
                "section_benchmarks",
                "runtime_vs_workers",
                name="draw_runtime_vs_workers",
                tags="figures",
            ),
            node(
                nodes.build_report,
                {
                    "metrics": "metrics",
                    "classification_report": "classification_report",
                    "split_metadata": "split_metadata",
                    "preprocessing_stats": "preprocessing_stats",
                    "exploration": "exploration",
                    "classifier": "classifier",
                    "explanations": "explanations",
                    "repetitions": "repetitions",
                    "section_comparison": "section_comparison",
                    "section_benchmarks": "section_benchmarks",
                    "section_training": "section_training",
                    "section_tuning": "section_tuning",
                    "section_audit": "section_audit",
                    **{f"{name.removesuffix('_figure')}_png": name for name in FIGURES},
                },
                "report",
                name="build_report",
            ),
        ],
        tags="reporting",
    )
