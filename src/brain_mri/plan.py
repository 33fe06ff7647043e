"""What a run is about to do, said before it does it."""

from __future__ import annotations

import os
import subprocess
from itertools import takewhile
from typing import Any

from brain_mri.datasets.source import Survey
from brain_mri.models.estimate import estimate_caching_minutes, estimate_minutes, processor_cores
from brain_mri.pipelines.ingestion.parameters import IngestionParameters
from brain_mri.pipelines.preprocessing.parameters import PreprocessingParameters
from brain_mri.pipelines.training.nodes import choose_recipe
from brain_mri.pipelines.training.parameters import TrainingParameters
from brain_mri.pipelines.tuning.parameters import TuningParameters

# Files a second and core: inspected and packed, then prepared; docs/performance.md says on which machine.
_INGESTED = 1000
_PREPARED = 1300
_USUAL_BYTES = 15_000
_START_MINUTES = 0.7  # Spark, TensorFlow, figures


def describe_run(
    survey: Survey, parameters: dict[str, Any], storage: str, *, trains: bool, tunes: bool = False
) -> str:
    """Say source, backbone, device, minutes and disk of a whole run.

    Args:
        survey: What will be read.
        parameters: All sections by name.
        storage: Where results go.
        trains: Whether the run goes on to training, or ends before it.
        tunes: Whether it searches for a configuration; nobody knows before how long that takes.

    Returns:
        One line for the log.

    Example:
        >>> describe_run(survey_source(raw, None), parameters, "data", trains=True)
        ... # doctest: +SKIP
        'About to train compact (recipe baseline) on 2000 synthetic phantoms in …; device: 2 CPU cores; …'
    """
    ingestion = IngestionParameters.model_validate(parameters["ingestion"])
    image_size = PreprocessingParameters.model_validate(parameters["preprocessing"]).image_size
    source = survey.source
    files = survey.files or ingestion.phantom.images
    size = survey.bytes or files * _USUAL_BYTES
    cores, gpus = processor_cores(), count_gpus() if trains else 0
    minutes = _START_MINUTES + files / cores / 60 * (1 / _INGESTED + 1 / _PREPARED)
    what = "ingest"
    if trains:
        # The weights change nothing here, and training itself warns of a random start.
        changes = {"weights": "auto", "config": None}
        training = TrainingParameters.model_validate({**parameters["training"], **changes})
        if training.distribution != "none":
            gpus = training.num_workers * training.worker_gpus
        recipe = choose_recipe(training, source.kind, image_size, ingestion.class_set().names)
        rows = round(files * ingestion.split_ratios.train), round(files * ingestion.split_ratios.validation)
        cached = range(len(recipe.stages) if recipe.asks_twice and training.cache_gib else 0)
        if cached:
            minutes += estimate_caching_minutes(recipe, *rows, cores)
        minutes += estimate_minutes(recipe, *rows, cores, cached)
        what = f"train {recipe.backbone} (recipe {recipe.name}) on"
    if tunes:
        tuning = TuningParameters.model_validate(parameters["tuning"])
        what = f"try up to {tuning.rounds * tuning.trials_per_round} configurations and {what}"
    scans = _counted(files, "synthetic phantom" if source.kind == "phantom" else "scan")
    device = _counted(gpus, "GPU") if gpus else _counted(cores, "CPU core")
    beside = " beside the search" if tunes else ""
    about = "at most about" if gpus else "about"  # the rates are those of processor cores
    disk = (size + files * image_size**2) / 1e9
    return (
        f"About to {what} {scans} in {source.url}, because {source.why}; device: {device}; "
        f"{about} {max(minutes, 1):.0f} minutes{beside} and {disk:.1f} GB under {storage}."
    )


def count_gpus() -> int:
    """Count NVIDIA's GPUs that this process may use, without starting TensorFlow: 0 where none answer."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607 - its folder differs between systems
            capture_output=True, text=True, timeout=5, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return 0
    present = sum(line.startswith("GPU ") for line in listed.splitlines())
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return present
    names = (name.strip() for name in allowed.split(","))
    return min(present, len(list(takewhile(lambda name: name and not name.startswith("-"), names))))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
