"""What a training is about to cost, said before it starts."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import joblib

if TYPE_CHECKING:
    from brain_mri.models.recipe import Precision, Recipe


class Rates(NamedTuple):
    """Images a second on one processor core, 224×224 pixels, float32, batches of 16."""

    frozen: float
    trained: float  # the last layers
    whole: float  # all layers
    evaluated: float
    behind: float  # trained layers alone, where what frozen ones compute is cached


_RATES = {
    "resnet50": Rates(frozen=23, trained=17, whole=8, evaluated=24, behind=37),
    "mobilenetv2": Rates(frozen=95, trained=72, whole=23, evaluated=103, behind=75),
    "compact": Rates(frozen=1200, trained=350, whole=350, evaluated=1500, behind=350),
}
_HEAD = 1300.0  # the head alone, of all backbones


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


def best_precision(backbone: str, on_gpu: bool = False) -> Precision:
    """The precision that trains a backbone fastest on this machine; on workers' GPUs, that is assumed.

    Processors with AVX-512 BF16 or AMX gain on the large convolutions of ResNet-50, and lose on MobileNetV2's
    depthwise ones (docs/performance.md).
    """
    if on_gpu and backbone != "compact":
        return "mixed_bfloat16"
    if backbone != "resnet50":
        return "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux
        return "float32"
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def estimate_minutes(
    recipe: Recipe, train_rows: int, validation_rows: int, cores: int, cached: Collection[int] = ()
) -> float:
    """Estimate how long all stages take on processor cores; within a factor of two, say.

    Args:
        recipe: Names backbone, image size and stages.
        train_rows: Images a training epoch.
        validation_rows: Images a validation.
        cores: That TensorFlow may use.
        cached: Numbers of stages for which what frozen layers compute is there already.
    """
    rates, size = _RATES[recipe.backbone], (recipe.image_size / 224) ** 2
    seconds = 0.0
    for number, stage in enumerate(recipe.stages):
        if number in cached:
            rate = rates.behind / size if stage.unfrozen_layers else _HEAD
            evaluated = 2 * rate
        else:
            trained = rates.whole if stage.unfrozen_layers == "all" else rates.trained
            rate = (trained if stage.unfrozen_layers else rates.frozen) / size
            evaluated = rates.evaluated / size
        seconds += stage.epochs * (train_rows / rate + validation_rows / evaluated)
    return seconds / cores / 60


def estimate_caching_minutes(recipe: Recipe, train_rows: int, validation_rows: int, cores: int) -> float:
    """Estimate how long frozen layers take to compute once what training behind them asks for.

    Args:
        recipe: With a number of views of an image.
        train_rows: Training images.
        validation_rows: Validation images.
        cores: That Spark's tasks may use.
    """
    images = train_rows * (recipe.augmentation.views or 0) + validation_rows
    rate = _RATES[recipe.backbone].evaluated / (recipe.image_size / 224) ** 2
    return images / rate / cores / 60
