"""What the frozen layers of a recipe compute, found in the cache or computed for it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from dataclasses import replace

from brain_mri.datasets.features import FeatureCache, FeatureSet
from brain_mri.datasets.shards import Column, ShardSet
from brain_mri.models.features import Extraction, FeatureDtype, FrozenPart, StageFeatures, frozen_parts
from brain_mri.models.recipe import Recipe
from brain_mri.pipelines.progress import progress_bar
from brain_mri.spark.launchers import Launcher

log = logging.getLogger(__name__)

IMAGES_COMPARED = 4
_KEY_LENGTH = 24


def cache_features(  # noqa: PLR0917 - a set each to learn from and to validate with, and how
    recipe: Recipe,
    train: ShardSet,
    validation: ShardSet,
    store: FeatureCache,
    launcher: Launcher,
    limit: int,
    dtype: FeatureDtype,
) -> dict[int, StageFeatures]:
    """Compute what frozen layers make of every image, for each stage that has some, unless it is there.

    Args:
        recipe: Says what is frozen when, and which views of an image there are.
        train: Images to learn from; every view of them is cached.
        validation: Images to validate with.
        store: Where it is kept.
        launcher: Runs the tasks.
        limit: Bytes that the store may take; a stage that does not fit is left out, and said to be.
        dtype: In which it is kept.

    Returns:
        By number of the stage; empty where nothing can be cached.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        EngineError: The engine does not compute what the network does.
    """
    stages: dict[int, StageFeatures] = {}
    kept: set[str] = set()
    for number, part in frozen_parts(recipe).items():
        columns = [
            Column(f"values_{place}", tensor.shape, dtype) for place, tensor in enumerate(part.cut.tensors)
        ]
        extraction = Extraction(None, part.key, dtype, recipe, number)
        views = [replace(extraction, view=view) for view in range(1, (recipe.augmentation.views or 0) + 1)]
        asked = [*((view, train) for view in views), (extraction, validation)]
        wanted = {_key(each, source): (each, source) for each, source in asked}
        found = {key: store.find(key) for key in wanted}
        kept |= {key for key, features in found.items() if features}
        missing = {key: wanted[key] for key, features in found.items() if features is None}
        size = sum(source.rows for _, source in missing.values()) * sum(map(_bytes_of_row, columns))
        name = recipe.stages[number].name
        if missing and not store.make_room(size, limit, kept):
            log.warning(
                "Stage %r: what its frozen layers compute would take %.1f GiB of the %.1f that the cache may "
                "take, so it is computed in every epoch. Raise training.cache_gib, or ask for fewer "
                "training.augmented_copies.", name, size / 2**30, limit / 2**30,
            )  # fmt: skip
            continue
        if missing:
            found |= _computed(part, name, missing, columns, store, launcher)
        else:
            log.info("Stage %r: what its frozen layers compute is in the cache.", name)
        kept |= set(wanted)
        sets = [features for features in found.values() if features]
        stages[number] = StageFeatures(part.cut, dtype, tuple(sets[:-1]), sets[-1])
    return stages


def _computed(  # noqa: PLR0917
    part: FrozenPart,
    stage: str,
    missing: dict[str, tuple[Extraction, ShardSet]],
    columns: list[Column],
    store: FeatureCache,
    launcher: Launcher,
) -> dict[str, FeatureSet]:
    some, source = next(iter(missing.values()))
    _, _, images = source.first(IMAGES_COMPARED)
    graph_name = f"{part.key[:_KEY_LENGTH]}.onnx"
    graph = store.write_graph(graph_name, part.to_onnx(images, some.dtype))
    started, rows, made = time.perf_counter(), sum(source.rows for _, source in missing.values()), {}
    try:
        for key, (extraction, source) in missing.items():
            progress = progress_bar("Frozen layers", source.rows, "rows")
            extract = replace(extraction, graph=graph)
            made[key] = store.make(key, source, columns, extract, launcher, progress)
    finally:
        store.remove(graph_name)
    seconds, stored = time.perf_counter() - started, sum(each.stored_bytes() for each in made.values())
    log.info(
        "Stage %r: what its frozen layers compute of %s images is cached: %s, %.1f MiB, %.1f s, "
        "%.0f images/s.",
        stage, f"{rows:,}", ", ".join("×".join(map(str, column.shape)) for column in columns),
        stored / 2**20, seconds, rows / seconds,
    )  # fmt: skip
    return made


def _key(extraction: Extraction, source: ShardSet) -> str:
    """What a set of features is found by: what is computed, of which images, in which order."""
    parts = [[part["name"], part["row_groups"], part.get("sha256")] for part in source.summary["parts"]]
    split = source.url.rpartition("/")[2]  # parts of all splits have the same names
    ingredients = [extraction.name, source.preparation, split, parts]
    return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:_KEY_LENGTH]


def _bytes_of_row(column: Column) -> int:
    return math.prod(column.shape) * int(column.dtype.removeprefix("float")) // 8
