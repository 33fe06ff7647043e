from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from brain_mri.datasets.fundus_phantoms import FundusPhantomFolder
from brain_mri.imaging.retina import EnhanceOptions
from brain_mri.pipelines.enhancement import create_pipeline
from brain_mri.pipelines.enhancement.nodes import (
    MOST_FILES,
    NoPhotographsError,
    at_work,
    cut_shards,
    draw_enhancement,
    makespan,
    member_keys,
    plan_shards,
)
from brain_mri.pipelines.enhancement.parameters import EnhancementParameters

CONFIGURATION = Path(__file__).resolve().parents[3] / "conf" / "base"
NAMES = st.text(st.sampled_from("ab.%/2E"), min_size=1, max_size=12)


def test_every_output_has_its_place() -> None:
    pipeline = create_pipeline()
    catalog = yaml.safe_load((CONFIGURATION / "catalog_enhancement.yml").read_text())
    assert pipeline.all_outputs() | {"fundus_phantoms"} == set(catalog)


@given(
    st.lists(st.builds("x/{}y.{}".format, NAMES, st.sampled_from(["jpg", "png"])), unique=True, max_size=20)
)
def test_keys_are_unique_and_their_names_hold_no_dot(names: list[str]) -> None:
    paths = sorted({str(PurePosixPath(name)) for name in names})
    keys = member_keys(paths)
    assert len(set(keys)) == len(paths)
    assert not any("." in key.rpartition("/")[2] for key in keys)


def test_a_plan_is_cut_by_bytes_and_hangs_on_names_and_sizes_alone() -> None:
    sizes = {"c.jpg": 40, "a.jpg": 60, "b.jpg": 50, "d.jpg": 500, "e.jpg": 1}
    files = pd.DataFrame(
        {"path": list(sizes), "url": [f"/{name}" for name in sizes], "bytes": list(sizes.values())}
    )
    plan = cut_shards(files, 100)
    assert plan.groupby("shard")["key"].agg("".join).tolist() == ["a", "bc", "d", "e"]
    pd.testing.assert_frame_equal(cut_shards(files.sample(frac=1, random_state=3), 100), plan)


def test_a_source_is_listed_below_folders_and_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ("1/left.jpg", "2/deep/right.png", ".hidden/3.jpg", "2/Thumbs.db"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    plan = plan_shards(FundusPhantomFolder(""), EnhancementParameters(source=str(tmp_path)))
    assert plan["key"].tolist() == ["1/left", "2/deep/right"]
    assert set(plan["source"]) == {str(tmp_path)}


def test_patterns_and_the_output_leave_files_out(tmp_path: Path) -> None:
    for name in ("1/left.JPG", "1/left_mask.png", "right.jpg", "made/shard-00000.tar", "made/copy.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    given = {"source": str(tmp_path), "exclude": "*_mask.*", "output": f"{tmp_path}/made/"}
    plan = plan_shards(FundusPhantomFolder(""), EnhancementParameters(**given))
    assert plan["key"].tolist() == ["1/left", "right"]
    given |= {"include": ["1/*", "*.tif"], "exclude": []}
    plan = plan_shards(FundusPhantomFolder(""), EnhancementParameters(**given))
    assert plan["path"].tolist() == ["1/left.JPG", "1/left_mask.png"]
    around = EnhancementParameters(source=str(tmp_path / "1"), output=str(tmp_path))
    assert plan_shards(FundusPhantomFolder(""), around)["key"].tolist() == ["left", "left_mask"]
    with pytest.raises(
        NoPhotographsError, match=r"holds 5 files.*left out by enhancement.include=\['\*.tif'\]"
    ):
        plan_shards(FundusPhantomFolder(""), EnhancementParameters(**given | {"include": "*.tif"}))


def test_shards_of_a_small_set_are_smaller_unless_their_size_is_named() -> None:
    usual, named = EnhancementParameters(), EnhancementParameters(shard_mib=0.5)
    mib = 2**20
    assert [usual.shard_bytes(total * mib) / mib for total in (1, 640, 700, 20_000)] == [0.25, 8, 8, 256]
    assert named.shard_bytes(20_000 * mib) == mib // 2


def test_a_shard_of_empty_files_has_an_end() -> None:
    count = MOST_FILES + 1
    files = pd.DataFrame({"path": [f"{n}.jpg" for n in range(count)], "url": "", "bytes": 0})
    assert cut_shards(files, 100)["shard"].value_counts().tolist() == [MOST_FILES, 1]


def test_where_no_source_is_named_phantoms_are_drawn_once(tmp_path: Path) -> None:
    phantoms = FundusPhantomFolder(str(tmp_path / "phantoms"))
    plan = plan_shards(phantoms, EnhancementParameters(phantoms=4))
    assert plan["key"].tolist() == ["mild/00001", "none/00000", "none/00003", "severe/00002"]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    pd.testing.assert_frame_equal(plan_shards(phantoms, EnhancementParameters(phantoms=4)), plan)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == times


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_source_that_holds_nothing_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoPhotographsError, match=name):
        plan_shards(FundusPhantomFolder(""), EnhancementParameters(source=str(tmp_path / name)))


def test_parameters_are_those_of_the_steps_and_what_makes_no_sense_is_refused() -> None:
    assert EnhancementParameters().options() == EnhanceOptions()
    for wrong, said in (
        ({"vessels": {"low": 0.8, "high": 0.5}}, "low has to be at most high"),
        ({"vessels": {"block": 24}}, "has to be odd"),
        ({"vessels": {"method": "magic"}}, "network"),
        ({"shard_mib": 0}, "greater than 0"),
    ):
        with pytest.raises(ValidationError, match=said):
            EnhancementParameters.model_validate(wrong)


def test_the_end_of_the_last_task_comes_earlier_with_more_workers() -> None:
    tasks = [3.0, 1.0, 2.0, 2.0, 1.0]
    ends = [makespan(tasks, workers) for workers in range(1, 8)]
    assert ends[0] == sum(tasks)
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] == max(tasks)


def test_pauses_are_no_work_and_workers_that_came_later_are_the_same_hands() -> None:
    first_run = [(0.0, 10.0), (0.0, 9.0), (9.0, 12.0)]
    second_run = [(1000.0, 1003.0), (1001.0, 1004.0)]
    assert at_work(first_run) == (2, 12.0)
    assert at_work(first_run + second_run) == (2, 16.0)


def test_throughput_and_runtime_are_drawn() -> None:
    stages = {"read": 900.0, "enhance": 1.5, "all": 1.4}
    megapixels = {"read": 3000.0, "enhance": 5.04, "all": 4.7}
    stats = {
        "images_per_second": stages, "megapixels_per_second": megapixels,
        "workers": 2, "wall_seconds": 9.0, "shard_seconds": [4.0, 4.5, 5.0],
        "files": 20,
    }  # fmt: skip
    throughput, runtime = draw_enhancement(stats)
    assert {text.get_text() for text in throughput.axes[0].get_yticklabels()} == set(stages)
    assert {text.get_text() for text in throughput.axes[0].texts} == {
        "900 (3,000)", "1.5 (5)", "1.4 (4.7)",
    }  # fmt: skip
    (measured,) = [line for line in runtime.axes[0].lines if line.get_label() == "measured"]
    assert list(measured.get_xdata()) == [2]
    assert list(measured.get_ydata()) == [9.0]
