"""What the frozen layers of a recipe compute, found in the cache or computed for it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

import numpy as np

from brain_mri.datasets.features import FeatureCache, FeatureSet
from brain_mri.datasets.shards import Column, ShardSet
from brain_mri.models.features import (
    Extraction,
    FeatureDtype,
    FrozenPart,
    StageFeatures,
    frozen_parts,
    to_onnx,
)
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
    keep: Iterable[str] = (),
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
        keep: Names of sets that are not to make room for it.

    Returns:
        By number of the stage; empty where nothing can be cached.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
        EngineError: The engine does not compute what the network does.
    """
    views = [*range(1, (recipe.augmentation.views or 0) + 1)]
    sources = [*((view, train) for view in views), (None, validation)]
    wanted: dict[int, _Wanted] = {}
    found: dict[str, FeatureSet] = {}
    pending = 0
    for number, part in frozen_parts(recipe).items():
        columns = tuple(
            Column(f"values_{place}", tensor.shape, dtype) for place, tensor in enumerate(part.cut.tensors)
        )
        keys = tuple(_key(part.name_of(dtype, view), source) for view, source in sources)
        there = {key: features for key in keys if (features := store.find(key)) is not None}
        missing = [source.rows for key, (_, source) in zip(keys, sources, strict=True) if key not in there]
        size, name = sum(missing) * sum(map(_bytes_of_row, columns)), recipe.stages[number].name
        if missing and not store.make_room(pending + size, limit, {*found, *there, *keep}):
            log.warning(
                "Stage %r: what its frozen layers compute would take %.1f GiB of the %.1f that the cache may "
                "take, so it is computed in every epoch. Raise training.cache_gib, or ask for fewer "
                "training.augmented_copies.", name, size / 2**30, limit / 2**30,
            )  # fmt: skip
            continue
        if not missing:
            log.info("Stage %r: what its frozen layers compute is in the cache.", name)
        pending += size
        found |= there
        wanted[number] = _Wanted(part, columns, keys)
    lacking = [each for each in wanted.values() if not set(each.keys) <= set(found)]
    if lacking:
        found |= _computed(lacking, set(found), sources, store, launcher, dtype)
    return {
        number: StageFeatures(
            each.part.cut, dtype, tuple(found[key] for key in each.keys[:-1]), found[each.keys[-1]]
        )
        for number, each in wanted.items()
    }


class _Wanted(NamedTuple):
    """What a stage asks of the cache: a set a view of the training images, then that of validation."""

    part: FrozenPart
    columns: tuple[Column, ...]
    keys: tuple[str, ...]


def _computed(  # noqa: PLR0917
    stages: Sequence[_Wanted],
    there: Set[str],
    sources: Sequence[tuple[int | None, ShardSet]],
    store: FeatureCache,
    launcher: Launcher,
    dtype: FeatureDtype,
) -> dict[str, FeatureSet]:
    """Compute what is not there, for all stages in one pass over the images of each view."""
    _, _, images = sources[-1][1].first(IMAGES_COMPARED)
    key = hashlib.sha256("".join(each.part.key for each in stages).encode()).hexdigest()[:_KEY_LENGTH]
    started, rows, made = time.perf_counter(), 0, dict[str, FeatureSet]()
    graph = store.write_graph(f"{key}.onnx", to_onnx([each.part for each in stages], images, dtype))
    exported = time.perf_counter()
    try:
        for number, (view, source) in enumerate(sources):
            missing: dict[str, dict[int, Column]] = {}
            place = 0
            for each in stages:
                if each.keys[number] not in there:
                    missing[each.keys[number]] = dict(enumerate(each.columns, start=place))
                place += len(each.columns)
            if missing:
                rows += source.rows
                extract = Extraction(graph, key, dtype, stages[0].part.recipe, view)
                progress = progress_bar("Frozen layers", source.rows, "rows")
                made |= store.make(missing, source, extract, launcher, progress)
    finally:
        store.remove(f"{key}.onnx")
    seconds, stored = time.perf_counter() - exported, sum(each.stored_bytes() for each in made.values())
    shapes = ["×".join(map(str, column.shape)) for each in stages for column in each.columns]
    log.info(
        "What frozen layers compute of %s images is cached: %s, %.1f MiB; graph in %.1f s, then %.1f s, "
        "%.0f images/s.",
        f"{rows:,}", ", ".join(shapes), stored / 2**20, exported - started, seconds, rows / seconds,
    )  # fmt: skip
    return made


def _key(name: str, source: ShardSet) -> str:
    """What a set of features is found by: what is computed, of which images, in which order."""
    parts = [[part["name"], part["row_groups"], part.get("sha256")] for part in source.summary["parts"]]
    split = source.url.rpartition("/")[2]  # parts of all splits have the same names
    ingredients = [name, source.preparation, split, parts]
    return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:_KEY_LENGTH]


def _bytes_of_row(column: Column) -> int:
    return math.prod(column.shape) * np.dtype(column.dtype).itemsize
