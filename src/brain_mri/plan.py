"""What a run is about to do, said before it does it."""

from __future__ import annotations

import shutil
from typing import Any

from brain_mri.datasets.source import RawFolder, list_files, read_table
from brain_mri.models.estimate import estimate_minutes, processor_cores
from brain_mri.pipelines.ingestion.parameters import IngestionParameters
from brain_mri.pipelines.preprocessing.parameters import PreprocessingParameters
from brain_mri.pipelines.training.nodes import choose_recipe
from brain_mri.pipelines.training.parameters import TrainingParameters

# Files a second and core: inspected and packed, then prepared; docs/performance.md says on which machine.
_INGESTED = 400
_PREPARED = 800
_USUAL_BYTES = 15_000
_START_MINUTES = 0.7  # Spark, TensorFlow, figures


def describe_run(raw: RawFolder, parameters: dict[str, Any], storage: str, *, trains: bool) -> str:
    """Say source, backbone, device, minutes and disk of a whole run.

    Args:
        raw: Where data may lie.
        parameters: All sections by name.
        storage: Where results go.
        trains: Whether the run goes on to training, or ends before it.

    Returns:
        One line for the log.

    Raises:
        SourceError: The source that was asked for is not there.
    """
    ingestion = IngestionParameters.model_validate(parameters["ingestion"])
    image_size = PreprocessingParameters.model_validate(parameters["preprocessing"]).image_size
    source = raw.choose(ingestion.source)
    if source.kind == "phantom" and ingestion.source is None:
        files, size = ingestion.phantom.images, ingestion.phantom.images * _USUAL_BYTES
    elif source.kind == "table":
        files = len(read_table(source)[0])
        size = files * _USUAL_BYTES
    else:
        listed = list_files(source)
        files, size = len(listed), int(listed["bytes"].sum())
    cores = processor_cores()
    minutes = _START_MINUTES + files / cores / 60 * (1 / _INGESTED + 1 / _PREPARED)
    what = "ingest"
    if trains:
        training = TrainingParameters.model_validate(parameters["training"])
        recipe = choose_recipe(training, source.kind, image_size, ingestion.class_set().names)
        rows = round(files * ingestion.split_ratios.train), round(files * ingestion.split_ratios.validation)
        minutes += estimate_minutes(recipe, *rows, cores)
        what = f"train {recipe.backbone} (recipe {recipe.name}) on"
    kind = "synthetic phantoms" if source.kind == "phantom" else "scans"
    device = "a GPU if TensorFlow can use it" if shutil.which("nvidia-smi") else f"{cores} CPU cores"
    disk = (size + files * image_size**2) / 1e9
    return (
        f"About to {what} {files} {kind} in {source.url}, because {source.why}; device: {device}; "
        f"about {max(minutes, 1):.0f} minutes and {disk:.1f} GB under {storage}."
    )
