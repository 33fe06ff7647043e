"""What a training is about to cost, said before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import joblib

if TYPE_CHECKING:
    from brain_mri.models.recipe import Precision, Recipe


class Rates(NamedTuple):
    """Images a second on one processor core, 224×224 pixels, float32, batches of 16."""

    frozen: float
    trained: float
    evaluated: float


_RATES = {
    "resnet50": Rates(frozen=23, trained=17, evaluated=24),
    "mobilenetv2": Rates(frozen=95, trained=72, evaluated=103),
    "compact": Rates(frozen=1200, trained=350, evaluated=1500),
}


def processor_cores() -> int:
    """Cores that this process may use: its affinity and its container's quota count."""
    return int(joblib.cpu_count())


def describe_device(cores: int | None = None) -> str:
    """Say in words what TensorFlow will compute on.

    Args:
        cores: That TensorFlow was told to use; None for all.

    Example:
        >>> describe_device()  # doctest: +SKIP
        '2 CPU cores'
    """
    import tensorflow as tf

    devices = len(tf.config.list_physical_devices("GPU"))
    if devices:
        return f"{devices} GPU{'s' if devices > 1 else ''}"
    cores = cores or processor_cores()
    return f"{cores} CPU core{'s' if cores > 1 else ''}"


def best_precision(backbone: str) -> Precision:
    """The precision that trains a backbone fastest on this machine.

    Processors with AVX-512 BF16 or AMX gain on the large convolutions of ResNet-50, and lose on MobileNetV2's
    depthwise ones (docs/performance.md).
    """
    if backbone != "resnet50":
        return "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux
        return "float32"
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def estimate_minutes(recipe: Recipe, train_rows: int, validation_rows: int, cores: int) -> float:
    """Estimate how long all stages take on processor cores; within a factor of two, say.

    Args:
        recipe: Names backbone, image size and stages.
        train_rows: Images a training epoch.
        validation_rows: Images a validation.
        cores: That TensorFlow may use.
    """
    rates = _RATES[recipe.backbone]
    seconds = 0.0
    for stage in recipe.stages:
        rate = rates.trained if stage.unfrozen_layers else rates.frozen
        seconds += stage.epochs * (train_rows / rate + validation_rows / rates.evaluated)
    return seconds * (recipe.image_size / 224) ** 2 / cores / 60
