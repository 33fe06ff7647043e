from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from brain_mri.pipelines.reporting import create_pipeline
from brain_mri.pipelines.reporting.parameters import ReportingParameters
from brain_mri.pipelines.reporting.pipeline import FIGURES
from brain_mri.report.page import build_page

CONF = Path(__file__).resolve().parents[3] / "conf" / "base"


def test_every_output_is_in_the_catalog_under_the_storage_root() -> None:
    catalog = yaml.safe_load((CONF / "catalog_reporting.yml").read_text())
    made = {name for node in create_pipeline().nodes for name in node.outputs}
    assert set(catalog) == made | {
        *("section_benchmarks", "section_training"),  # which benchmarks write
        "classifier_versions",  # which training writes, one at a time
    }
    for name, entry in catalog.items():
        assert entry["filepath"].startswith("${globals:storage}/"), name
        assert entry["metadata"]["kedro-viz"]["layer"] in ("models", "model_output", "reporting"), name


def test_the_test_split_is_the_only_one_that_reporting_reads() -> None:
    read = {name for name in create_pipeline().inputs() if name.startswith("model_inputs")}
    assert read == {"model_inputs_test@shards"}


def test_the_report_gets_every_figure_that_its_page_shows() -> None:
    (report,) = [node for node in create_pipeline().nodes if node.name == "build_report"]
    template = (Path(inspect.getfile(build_page)).parent / "templates" / "report.html.j2").read_text()
    shown = {part.split('"')[0] for part in template.split('{{ figure("')[1:]}
    assert {f"{name.removesuffix('_figure')}" for name in report.inputs} >= shown
    assert len(shown) == 13


def test_figures_can_be_drawn_alone_by_their_tag() -> None:
    drawn = create_pipeline().only_nodes_with_tags("figures")
    assert drawn.outputs() == {*FIGURES} - {"class_distribution", "image_properties", "sample_grid"} | {
        "explanations"
    }
    modules = {node.func.__module__ for node in create_pipeline().nodes}
    parts = ("comparison", "explanations", "nodes", "predicting", "repetitions")
    assert modules == {f"brain_mri.pipelines.reporting.{part}" for part in parts}


def test_parameters_in_the_file_are_the_defaults_and_others_are_refused() -> None:
    given = yaml.safe_load((CONF / "parameters_reporting.yml").read_text())["reporting"]
    assert ReportingParameters(**given) == ReportingParameters()
    with pytest.raises(ValidationError, match="sead"):
        ReportingParameters(sead=1)  # type: ignore[call-arg]  # a mistyped name, on purpose
