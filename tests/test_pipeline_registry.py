"""The shape of the pipelines, seen without Spark, TensorFlow or data."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from kedro.pipeline import Pipeline
from pydantic import BaseModel

from brain_mri.pipeline_registry import register_pipelines

# Optional: what an earlier run or a search left, and what a benchmark wrote.
OF_EARLIER_RUNS = {
    "earlier_manifest",
    "earlier_split_metadata",
    "section_benchmarks",
    "section_training",
    "section_tuning",
    "section_audit",
    "best_config",
    "classifier_versions",
}
REPOSITORY = Path(__file__).resolve().parents[1]
LAYERS = {"raw", "intermediate", "primary", "feature", "model_input", "models", "model_output", "reporting"}


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Pipeline]:
    return register_pipelines()


def test_the_default_leads_from_scans_to_a_report(pipelines: dict[str, Pipeline]) -> None:
    parts = ("ingestion", "preprocessing", "training", "reporting")
    assert set(pipelines) == {*parts, "tuning", "audit", "inference", "enhancement", "__default__"}
    assert {node.name for node in pipelines["__default__"].nodes} == {
        node.name for name in parts for node in pipelines[name].nodes
    }
    assert {name for name in pipelines["__default__"].inputs() if not name.startswith("params:")} == {
        "raw",
        "checkpoints",
        "feature_cache",
        *OF_EARLIER_RUNS,
    }


@pytest.mark.parametrize("name", ["training", "tuning"])
def test_training_and_search_never_see_the_test_split(pipelines: dict[str, Pipeline], name: str) -> None:
    assert not [entry for entry in pipelines[name].datasets() if entry.startswith("model_inputs_test")]
    assert "model_inputs_train@shards" in pipelines[name].inputs()


def test_every_node_gets_its_parameters_as_a_typed_object(pipelines: dict[str, Pipeline]) -> None:
    """Kedro passes a plain dict, in silence, where it cannot resolve the hints of a node."""
    found = 0
    for node in sum(pipelines.values(), Pipeline([])).nodes:
        hints = get_type_hints(node.func)
        for entry, argument in zip(node.inputs, inspect.signature(node.func).parameters, strict=False):
            if entry.startswith("params:"):
                assert issubclass(hints[argument], BaseModel), f"{node.name}: {argument}"
                found += 1
    assert found


def test_every_entry_is_used_and_every_persistent_name_is_in_the_catalog(
    pipelines: dict[str, Pipeline],
) -> None:
    entries: dict[str, dict[str, object]] = {}
    for path in sorted((REPOSITORY / "conf" / "base").glob("catalog*.yml")):
        text = path.read_text(encoding="utf-8")
        entries |= {name: entry for name, entry in yaml.safe_load(text).items() if not name.startswith("_")}
    whole = sum(pipelines.values(), Pipeline([]))
    used = {name for name in whole.datasets() if not name.startswith("params:")}
    assert used <= set(entries)
    # These are for notebooks; nodes and tasks read through handles.
    assert set(entries) - used == {
        "scans@spark",
        *(f"model_inputs_{split}@tensorflow" for split in ("train", "validation", "test")),
    }
    for name, entry in entries.items():
        assert entry["metadata"]["kedro-viz"]["layer"] in LAYERS, name  # type: ignore[index]
        sent = {"scores": "inference", "enhanced_shards": "enhancement"}.get(name)
        root = f"${{runtime_params:{sent}.output,${{globals:storage}}/" if sent else "${globals:storage}/"
        assert name == "raw" or str(entry["filepath"]).startswith(root), name


def test_listing_and_inspecting_start_neither_spark_nor_tensorflow() -> None:
    program = (
        "import sys, os; os.environ['PATH'] = ''; os.environ.pop('JAVA_HOME', None)\n"
        "from pathlib import Path\n"
        "from kedro.inspection import get_project_snapshot\n"
        f"snapshot = get_project_snapshot(Path({str(REPOSITORY)!r}))\n"
        "assert {p.name for p in snapshot.pipelines} >= {'ingestion', 'training', '__default__'}, snapshot\n"
        "started = [name for name in ('tensorflow', 'keras', 'py4j.java_gateway') if name in sys.modules]\n"
        "from py4j import java_gateway\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules, started\n"
        "from pyspark import SparkContext\n"
        "assert SparkContext._active_spark_context is None\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
