"""Nodes of the pipeline `enhancement`: list photographs, plan shards, have them made, say how it went."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from brain_mri.cohort.layout import is_no_scan
from brain_mri.datasets.enhanced import Enhancing
from brain_mri.datasets.enhancing import STAGES
from brain_mri.datasets.fundus_phantoms import FundusPhantomFolder
from brain_mri.datasets.source import Source, list_files
from brain_mri.datasets.tar_shards import TarShards
from brain_mri.pipelines.enhancement.parameters import EnhancementParameters
from brain_mri.pipelines.inference.nodes import choose_launcher, is_shared
from brain_mri.pipelines.progress import progress_bar
from brain_mri.report.speed import runtime_on_workers, throughput_stages
from brain_mri.storage.files import open_filesystem, place_of

log = logging.getLogger(__name__)

MOST_FILES = 10_000
"""Of a shard: their rows are what its task holds, whatever their bytes."""

FEW = 8
"""So few photographs of this machine are enhanced before Spark would have started."""


class NoPhotographsError(ValueError):
    """There is nothing to enhance."""


def plan_shards(phantoms: FundusPhantomFolder, parameters: EnhancementParameters) -> pd.DataFrame:
    """List the photographs, and decide which shard holds which.

    The plan depends on names, sizes and parameters alone, and not on who carries it out: a run that is
    resumed elsewhere makes the same shards.

    Args:
        phantoms: Draws photographs where no source is named.
        parameters: Name the source and the size of shards.

    Returns:
        `shard` (from 0), `key`, `path`, `url`, `bytes`, sorted by `key`.

    Raises:
        NoPhotographsError: The source is not there, or holds no files.
        SourceError: A folder cannot be listed.
    """
    source = parameters.source or phantoms.draw(parameters.phantoms)
    filesystem, path = open_filesystem(source)
    if not filesystem.isdir(path):
        raise NoPhotographsError(
            f"There is no folder at {source!r}. Expected a folder of photographs, here or at a URL such as "
            "s3://bucket/photographs (enhancement.source)."
        )
    files = list_files(Source("folder", source, "it is to be enhanced"))
    if files.empty:
        raise NoPhotographsError(f"There are no files in {source}.")
    wanted = partial(_is_wanted, own=_output_within(source, parameters.output), parameters=parameters)
    found, files = len(files), files[files["path"].map(wanted).astype(bool)].reset_index(drop=True)
    if files.empty:
        raise NoPhotographsError(
            f"There are no photographs in {source}: it holds {found:,} files, and they are hidden, lie below "
            f"enhancement.output, or are left out by enhancement.include={list(parameters.include)}, "
            f"enhancement.exclude={list(parameters.exclude)}."
        )
    plan = cut_shards(files, parameters.shard_bytes(int(files["bytes"].sum())))
    log.info(
        "%s photographs (%.1f MB) in %s go to %d shards.", f"{len(plan):,}", plan["bytes"].sum() / 1e6,
        source, plan["shard"].max() + 1,
    )  # fmt: skip
    return plan.assign(source=source)


def _is_wanted(path: str, own: str | None, parameters: EnhancementParameters) -> bool:
    def fits(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(path.lower(), pattern.lower()) for pattern in patterns)

    if is_no_scan(path) or (own and path.startswith(own)):
        return False
    return fits(parameters.include) and not fits(parameters.exclude)


def _output_within(source: str, output: str | None) -> str | None:
    """How paths begin that lie in the output, where that lies in the source: those are no photographs."""
    if output is None:
        return None
    of_source, of_output = f"{place_of(source)}/", f"{place_of(output)}/"
    is_within = of_output.startswith(of_source) and of_output != of_source
    return of_output.removeprefix(of_source) if is_within else None


def cut_shards(files: pd.DataFrame, target: int) -> pd.DataFrame:
    """Give every file a key, and cut the sorted files into shards by bytes.

    Args:
        files: `path` below the source, `url`, `bytes`.
        target: Bytes of input that a shard holds; a larger file has one for itself. It has at most
            `MOST_FILES`.

    Returns:
        `shard`, `key`, `path`, `url`, `bytes`, sorted by `key`.

    Example:
        >>> files = pd.DataFrame({"path": ["b.png", "a.jpg"], "url": ["/b.png", "/a.jpg"], "bytes": [60, 50]})
        >>> cut_shards(files, 100)[["shard", "key"]].values.tolist()
        [[0, 'a'], [1, 'b']]
    """
    plan = files.assign(key=member_keys(list(files["path"]))).sort_values("key", ignore_index=True)
    number, held, count, numbers = 0, 0, 0, []
    for size in plan["bytes"].tolist():
        if (held and held + size > target) or count == MOST_FILES:
            number, held, count = number + 1, 0, 0
        held, count = held + size, count + 1
        numbers.append(number)
    return plan.assign(shard=numbers)[["shard", "key", "path", "url", "bytes"]]


def member_keys(paths: list[str]) -> list[str]:
    """Keys of members: the path without its suffix, or with it where several files would have the same.

    Args:
        paths: Each once.

    WebDataset takes what follows the first dot of a name for the kind of a member, so other dots are
    written as `%2E`.

    Example:
        >>> member_keys(["x/1.jpg", "x/2.jpg", "x/2.png", "y.d/3.left.png"])
        ['x/1', 'x/2%2Ejpg', 'x/2%2Epng', 'y.d/3%2Eleft']
    """

    def escaped(path: PurePosixPath, name: str) -> str:
        return str(path.with_name(name.replace("%", "%25").replace(".", "%2E")))

    pure = [PurePosixPath(path) for path in paths]
    keys = [escaped(path, path.stem) for path in pure]
    for _ in paths:
        repeated = {key for key, times in Counter(keys).items() if times > 1}
        if not repeated:
            break
        # Again, since a whole name may be what is left of another one: a.jpg, a.png, a.jpg.png.
        keys = [
            escaped(path, path.name) if key in repeated else key for key, path in zip(keys, pure, strict=True)
        ]
    return keys


def plan_enhancement(plan: pd.DataFrame, parameters: EnhancementParameters) -> Enhancing:
    """Say how the plan is carried out; that happens when the shards are saved.

    Args:
        plan: From :func:`plan_shards`.
        parameters: Say how photographs are enhanced, and what is refused.
    """
    source = str(plan["source"].iloc[0])
    shared = is_shared(source) and (parameters.output is None or is_shared(parameters.output))
    progress = progress_bar("Enhancing", len(plan), "files")
    launcher = choose_launcher(len(plan), shared, FEW)
    options, limits = parameters.options(), parameters.limits.limits()
    return Enhancing(plan, source, options, limits, launcher, parameters.source is None, progress)


def measure_enhancement(shards: TarShards) -> dict[str, Any]:
    """How fast it went, by the stats records.

    Returns:
        ``files``, ``enhanced``, ``refused`` (by reason), ``megapixels``, ``bytes``, ``tar_bytes``;
        ``images_per_second`` and ``megapixels_per_second`` of a core by stage, and of ``all`` stages;
        ``workers``, the most that made shards at a time, ``wall_seconds`` during which any was made (where a
        run was broken off, without the pause), and ``shard_seconds``.
    """
    summary = shards.summary
    seconds = {stage: summary["seconds"].get(stage, 0.0) for stage in STAGES}
    seconds["all"] = sum(seconds.values())
    records = shards.shards
    workers, wall = at_work([(record["started"], record["ended"]) for record in records])
    return {
        **{
            name: summary[name]
            for name in ("files", "enhanced", "refused", "megapixels", "bytes", "tar_bytes")
        },
        "images_per_second": {
            stage: summary["enhanced"] / max(value, 1e-9) for stage, value in seconds.items()
        },
        "megapixels_per_second": {
            stage: summary["megapixels"] / max(value, 1e-9) for stage, value in seconds.items()
        },
        "workers": workers,
        "wall_seconds": wall,
        "shard_seconds": [sum(record["seconds"].values()) for record in records],
    }


def at_work(times: list[tuple[float, float]]) -> tuple[int, float]:
    """How many were at work at most, and for how long any was.

    Args:
        times: Start and end of each piece of work, in seconds.

    Example:
        >>> at_work([(0, 3), (1, 4), (4, 5), (100, 102)])
        (2, 7.0)
    """
    # An end counts before a start at the same time: it is the same worker that goes on.
    changes = sorted([(start, 1) for start, _ in times] + [(end, -1) for _, end in times])
    most, now, since, seconds = 0, 0, 0.0, 0.0
    for moment, change in changes:
        if not now:
            since = moment
        now += change
        most = max(most, now)
        if not now:
            seconds += moment - since
    return most, seconds


def draw_enhancement(stats: Mapping[str, Any]) -> tuple[Figure, Figure]:
    """Draw the throughput of every stage, and the runtime against workers.

    Args:
        stats: From :func:`measure_enhancement`.
    """
    workers = range(1, 2 * max(stats["workers"], 4) + 1)
    expected = [(number, makespan(stats["shard_seconds"], number)) for number in workers]
    measured = (stats["workers"], stats["wall_seconds"])
    return (
        throughput_stages(stats["images_per_second"], megapixels=stats["megapixels_per_second"]),
        runtime_on_workers(expected, measured, f"{stats['files']:,} photographs"),
    )


def makespan(seconds: list[float], workers: int) -> float:
    """When the last task ends, if each worker takes the next one as soon as it is free.

    Example:
        >>> makespan([3.0, 1.0, 1.0, 1.0], 2)
        3.0
    """
    ends = [0.0] * workers
    for each in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends)
