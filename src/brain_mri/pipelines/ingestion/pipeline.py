"""Wiring of the ingestion pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from brain_mri.pipelines.ingestion import nodes


def create_pipeline() -> Pipeline:
    """Raw folder or table → packed scans, manifest with splits, quarantine, exploration."""
    return Pipeline(
        [
            node(
                nodes.list_scans,
                ["raw", "earlier_split_metadata", "params:ingestion"],
                ["source_files", "source_description"],
                name="list_scans",
            ),
            node(
                nodes.pack_scans,
                ["source_files", "source_description", "earlier_manifest", "params:ingestion"],
                "scans@packed",
                name="pack_scans",
            ),
            node(
                nodes.keep_originals,
                ["source_files", "source_description", "params:ingestion"],
                "original_files",
                name="keep_originals",
            ),
            node(
                nodes.decide_splits,
                [
                    "source_files",
                    "scans@packed",
                    "source_description",
                    "earlier_manifest",
                    "params:ingestion",
                ],
                ["manifest", "split_metadata"],
                name="decide_splits",
            ),
            node(
                nodes.collect_quarantine,
                ["manifest", "scans@packed"],
                "quarantine",
                name="collect_quarantine",
            ),
            node(
                nodes.explore,
                ["manifest", "split_metadata"],
                ["exploration", "class_distribution", "image_properties"],
                name="explore",
                tags="figures",
            ),
        ],
        tags="ingestion",
    )
