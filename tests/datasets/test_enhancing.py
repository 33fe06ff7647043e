from __future__ import annotations

import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brain_mri.datasets import enhanced as enhanced_module
from brain_mri.datasets import enhancing as enhancing_module
from brain_mri.datasets.enhanced import EnhancedShardsDataset, Enhancing, OtherSourceError
from brain_mri.datasets.enhancing import enhance_shard
from brain_mri.datasets.source import Source, list_files
from brain_mri.imaging.decode import DecodeLimits
from brain_mri.imaging.fundus_phantom import draw_fundus
from brain_mri.imaging.photograph import PHOTOGRAPH_LIMITS
from brain_mri.imaging.retina import EnhanceOptions, enhance_photograph
from brain_mri.imaging.vessels import VesselOptions
from brain_mri.pipelines.enhancement.nodes import cut_shards
from brain_mri.storage.files import open_filesystem, temporary_name
from tests.clouds import Cloud

PLAIN = EnhanceOptions(vessels=VesselOptions(method="threshold"))  # fast
KINDS = {"enhanced.png", "vessels.png"}


class Here:
    """Runs tasks in this process, and can stop after some."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.made: list[str] = []

    def map(self, function: Any, items: Sequence[Any]) -> Iterator[Any]:
        for item in items:
            if len(self.made) == self.stop_after:
                raise KeyboardInterrupt
            record = function(item)
            if record["fresh"]:
                self.made.append(record["name"])
            yield record


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs in several formats, and files that are none."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, (kind, size) in enumerate(
        [("png", 96), ("jpg", 128), ("tif", 110), ("png", 150), ("jpg", 96)]
    ):
        path = folder / f"{number % 2}" / f"eye-{number}.{kind}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw_fundus(number, size=size).photograph).save(path)
    (folder / "1" / "notes.txt").write_text("left eye")
    (folder / "0" / "cut.png").write_bytes((folder / "0" / "eye-0.png").read_bytes()[:900])
    Image.new("RGB", (100, 100)).save(folder / "0" / "black.png")
    return folder


def plan_of(source: Path, target: int = 20_000) -> pd.DataFrame:
    files = [
        {"path": path.relative_to(source).as_posix(), "url": str(path), "bytes": path.stat().st_size}
        for path in sorted(source.rglob("*"))
        if path.is_file()
    ]
    return cut_shards(pd.DataFrame(files), target)


def enhancing(source: Path, launcher: Any, **changes: Any) -> Enhancing:
    given = {"options": PLAIN, "limits": PHOTOGRAPH_LIMITS, "plan": plan_of(source), **changes}
    return Enhancing(source=str(source), launcher=launcher, **given)


def tars(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    EnhancedShardsDataset(filepath=str(folder)).save(enhancing(source, Here()))
    return folder


def test_every_photograph_is_there_at_its_own_size_and_every_other_file_has_a_reason(
    made: Path, source: Path
) -> None:
    shards = EnhancedShardsDataset(filepath=str(made)).load()
    samples = dict(shards.samples())
    assert list(samples) == [f"0/eye-{number}" for number in (0, 2, 4)] + ["1/eye-1", "1/eye-3"]
    for members in samples.values():
        assert set(members) == KINDS
    for key, size in (("0/eye-2", 110), ("1/eye-3", 150)):
        grey, vessels = (
            cv2.imdecode(np.frombuffer(samples[key][kind], np.uint8), cv2.IMREAD_UNCHANGED)
            for kind in sorted(KINDS)
        )
        assert grey.shape == vessels.shape == (size, size)
        assert set(np.unique(vessels)) == {0, 255}

    table = shards.table().set_index("path")
    reasons = dict(table.loc[table["status"] == "refused", "reason"])
    assert reasons == {"1/notes.txt": "not_an_image", "0/cut.png": "damaged", "0/black.png": "blank"}
    assert shards.summary["refused"] == {"blank": 1, "damaged": 1, "not_an_image": 1}
    row = table.loc["0/eye-0.png"]
    assert row["sha256"] == hashlib.sha256((source / "0" / "eye-0.png").read_bytes()).hexdigest()
    assert row["vessels_sha256"] == hashlib.sha256(samples["0/eye-0"]["vessels.png"]).hexdigest()
    assert (row["width"], row["height"], row["enhanced_bytes"]) == (
        96,
        96,
        len(samples["0/eye-0"]["enhanced.png"]),
    )


def test_a_stats_record_says_what_a_shard_holds_and_took(made: Path) -> None:
    shards = EnhancedShardsDataset(filepath=str(made)).load().shards
    assert len(shards) > 2
    for shard in shards:
        content = (made / f"{shard['name']}.tar").read_bytes()
        assert shard["tar_sha256"] == hashlib.sha256(content).hexdigest()
        assert shard["tar_bytes"] == len(content)
        assert json.loads((made / f"{shard['name']}.json").read_text()) == shard
        assert shard["ended"] >= shard["started"]
        assert set(shard["seconds"]) == {"read", "decode", "enhance", "encode", "write"}


def test_another_run_makes_the_same_bytes_and_the_next_one_nothing(
    made: Path, source: Path, tmp_path: Path
) -> None:
    launcher = Here()
    dataset = EnhancedShardsDataset(filepath=str(tmp_path / "again"))
    dataset.save(enhancing(source, launcher))
    assert tars(tmp_path / "again") == tars(made)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "again").glob("shard-*")}
    idle = Here()
    dataset.save(enhancing(source, idle))
    assert launcher.made
    assert not idle.made
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "again").glob("shard-*")} == before


def test_a_run_that_was_broken_off_makes_what_is_missing(made: Path, source: Path, tmp_path: Path) -> None:
    first, second = Here(stop_after=2), Here()
    dataset = EnhancedShardsDataset(filepath=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        dataset.save(enhancing(source, first))
    assert not dataset.exists()
    dataset.save(enhancing(source, second))
    assert len(first.made) == 2
    assert not set(first.made) & set(second.made)
    assert tars(tmp_path) == tars(made)


def test_a_shard_without_its_record_is_made_again(made: Path, source: Path, tmp_path: Path) -> None:
    dataset = EnhancedShardsDataset(filepath=str(tmp_path))
    dataset.save(enhancing(source, Here()))
    (tmp_path / "shard-00001.json").unlink()
    (tmp_path / "shard-00001.tar").write_bytes(b"half")
    launcher = Here()
    dataset.save(enhancing(source, launcher))
    assert launcher.made == ["shard-00001"]
    assert tars(tmp_path) == tars(made)


@pytest.mark.parametrize(
    "changes",
    [{"options": EnhanceOptions(clip=3.0, vessels=PLAIN.vessels)}, {"limits": DecodeLimits(min_side=100)}],
)
def test_other_parameters_make_other_shards(source: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    dataset = EnhancedShardsDataset(filepath=str(tmp_path))
    dataset.save(enhancing(source, Here()))
    launcher = Here()
    dataset.save(enhancing(source, launcher, **changes))
    assert len(launcher.made) == len(dataset.load().shards)


def test_shards_of_a_longer_plan_go(source: Path, tmp_path: Path) -> None:
    dataset = EnhancedShardsDataset(filepath=str(tmp_path))
    dataset.save(enhancing(source, Here()))
    assert len(dataset.load().shards) > 1
    dataset.save(enhancing(source, Here(), plan=plan_of(source, 10**9)))
    assert [path.name for path in sorted(tmp_path.glob("shard-*"))] == [
        f"shard-00000.{kind}" for kind in ("json", "parquet", "tar")
    ]


def test_shards_of_another_source_stay_as_they_are(made: Path, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "others"
    other.mkdir()
    (other / "eye.png").write_bytes((source / "0" / "eye-0.png").read_bytes())
    before = tars(made)
    with pytest.raises(Exception, match="Name another folder") as error:
        EnhancedShardsDataset(filepath=str(made)).save(enhancing(other, Here()))
    assert isinstance(error.value.__cause__ or error.value, OtherSourceError)
    assert tars(made) == before
    assert EnhancedShardsDataset(filepath=str(made)).exists()


def test_two_tasks_of_one_shard_leave_one_shard(made: Path, source: Path, tmp_path: Path) -> None:
    shard = enhancing(source, Here()).shards()[0]
    make = partial(enhance_shard, url=str(tmp_path), options=PLAIN, limits=PHOTOGRAPH_LIMITS)
    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(make, [shard, shard]))
    assert len({record["tar_sha256"] for record in records}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"shard-00000.{kind}" for kind in ("json", "parquet", "tar")
    ]
    assert tars(tmp_path)["shard-00000.tar"] == tars(made)["shard-00000.tar"]
    assert make(shard)["fresh"] is False


def test_a_task_holds_a_photograph_and_not_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain_mri.datasets.tar_shards.CHUNK", 2**16)
    photographs = [draw_fundus(number, size=256).photograph for number in range(2)]
    peaks, sizes = [], []
    for count in (4, 24):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            Image.fromarray(photographs[number % 2]).save(folder / f"{number:02d}.png")
        (shard,) = enhancing(folder, Here(), plan=plan_of(folder, 10**9)).shards()
        enhance_shard(
            shard, f"{folder}-first", PLAIN, PHOTOGRAPH_LIMITS
        )  # what is imported and kept counts once
        tracemalloc.start()
        record = enhance_shard(shard, f"{folder}-made", PLAIN, PHOTOGRAPH_LIMITS)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert record["enhanced"] == count
        sizes.append(record["tar_bytes"])
    assert sizes[1] > 5 * sizes[0]
    assert peaks[1] - peaks[0] < 0.2 * (sizes[1] - sizes[0])


def test_an_attempt_that_is_late_replaces_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = enhancing(source, Here()).shards()[0]
    make = partial(enhance_shard, url=str(tmp_path), options=PLAIN, limits=PHOTOGRAPH_LIMITS)
    faster: list[dict[str, Any]] = []
    times: list[dict[Path, int]] = []

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(enhancing_module, "enhance_photograph", enhance_photograph)
        faster.append(make(shard))
        times.append({path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name[0] != "."})
        return enhance_photograph(*arguments)

    monkeypatch.setattr(enhancing_module, "enhance_photograph", overtaken)
    late = make(shard)
    assert faster[0]["fresh"] is True
    assert late == faster[0] | {"fresh": False}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times[0]
    assert len(times[0]) == 3


def test_what_decides_about_a_shard_is_not_where_its_photographs_lie(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, moved = EnhancedShardsDataset(filepath=str(tmp_path / "shards")), tmp_path / "elsewhere"
    shutil.copytree(source, moved)
    dataset.save(enhancing(source, Here()))
    idle = Here()
    dataset.save(enhancing(moved, idle))
    assert not idle.made
    here = [shard.fingerprint for shard in enhancing(source, Here()).shards()]
    assert [shard.fingerprint for shard in enhancing(moved, Here()).shards()] == here
    monkeypatch.setattr(enhanced_module, "steps_version", lambda: "of tomorrow")
    assert not set(here) & {shard.fingerprint for shard in enhancing(source, Here()).shards()}


def test_shards_of_drawn_photographs_make_room(source: Path, tmp_path: Path) -> None:
    drawn, shards = tmp_path / "drawn", str(tmp_path / "shards")
    shutil.copytree(source / "0", drawn)
    EnhancedShardsDataset(filepath=shards).save(enhancing(drawn, Here(), drawn=True))
    EnhancedShardsDataset(filepath=shards).save(enhancing(source, Here()))
    EnhancedShardsDataset(filepath=f"{shards}/").save(enhancing(Path(f"{source}/"), Here()))
    assert EnhancedShardsDataset(filepath=shards).load().summary["files"] == len(plan_of(source))


def test_what_a_killed_task_left_beside_the_shards_goes(source: Path, tmp_path: Path) -> None:
    left = Path(temporary_name(str(tmp_path / "shard-00000.tar")))
    left.write_bytes(b"half")
    EnhancedShardsDataset(filepath=str(tmp_path)).save(enhancing(source, Here()))
    assert not left.exists()


def test_a_preview_says_in_words_what_was_refused(made: Path) -> None:
    preview = EnhancedShardsDataset(filepath=str(made)).preview()
    column = preview["columns"].index("refused")
    assert {"1 blank, 1 damaged", "1 not_an_image"} <= {row[column] for row in preview["data"]}


def test_from_a_cloud_to_a_cloud_the_shards_are_those_of_a_disk(
    made: Path, source: Path, cloud: Cloud
) -> None:
    filesystem, bucket = open_filesystem(cloud.url)
    for path in source.rglob("*.*"):
        filesystem.pipe_file(f"{bucket}/photographs/{path.relative_to(source).as_posix()}", path.read_bytes())
    files = list_files(Source("folder", f"{cloud.url}/photographs", "it is to be enhanced"))
    filesystem.pipe_file(f"{bucket}/photographs/1/", b"")  # as consoles make a folder
    filesystem.invalidate_cache()
    plan = cut_shards(list_files(Source("folder", f"{cloud.url}/photographs", "again")), 20_000)
    pd.testing.assert_frame_equal(plan, cut_shards(files, 20_000))
    assert plan["key"].tolist() == plan_of(source)["key"].tolist()
    dataset = EnhancedShardsDataset(filepath=f"{cloud.url}/shards")
    first = Here(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        dataset.save(enhancing(source, first, plan=plan))
    assert not dataset.exists()
    second = Here()
    dataset.save(enhancing(source, second, plan=plan))
    assert first.made + second.made == [path.stem for path in sorted(made.glob("*.tar"))]
    shards = dataset.load()
    assert {f"{shard['name']}.tar": shard["tar_sha256"] for shard in shards.shards} == tars(made)
    assert dict(shards.samples()) == dict(EnhancedShardsDataset(filepath=str(made)).load().samples())
