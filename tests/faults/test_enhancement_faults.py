"""Machines are killed while photographs are enhanced: the shards are those of an undisturbed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from brain_mri.imaging.fundus_phantom import draw_fundus
from tests.cluster_runs import Project, events, finish, names_below, read
from tests.faults.computing import assert_replaced, kill_an_executor
from tests.faults.storage import Storage

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.slow]

SHARDS = "07_model_output/enhanced"
PHOTOGRAPHS = "hdfs:///photographs"


def digests(root: str) -> dict[str, str]:
    """sha256 of every archive, by the completion mark, each of a file that is there."""
    shards = json.loads(read(root, f"{SHARDS}/_SUCCESS"))["shards"]
    names = names_below(f"{root}/{SHARDS}")
    expected = {f"{shard['name']}.{kind}" for shard in shards for kind in ("tar", "parquet", "json")}
    assert {name for name in names if not name.startswith("_")} == expected, "nothing else is left"
    return {shard["name"]: shard["tar_sha256"] for shard in shards}


def test_a_worker_and_a_datanode_killed_while_photographs_are_enhanced_cost_nothing(
    storage: Storage, project: Project, new_root: str, tmp_path: Path
) -> None:
    (tmp_path / "photographs").mkdir()
    for seed in range(30):
        Image.fromarray(draw_fundus(seed).photograph).save(tmp_path / "photographs" / f"{seed:02d}.png")
    storage.cluster.fs("-put", str(tmp_path / "photographs"), "/photographs")
    words = f"enhancement.source={PHOTOGRAPHS},enhancement.shard_mib=1"
    undisturbed = f"{new_root}/undisturbed"
    finish(project.run("--pipelines=enhancement", root=undisturbed, parameters=words))
    expected = digests(undisturbed)
    assert len(expected) > 6

    disturbed = f"{new_root}/disturbed"
    run = project.run("--pipelines=enhancement", root=disturbed, parameters=words)
    worker = kill_an_executor(storage.cluster, run, "launchers.py", with_worker=True)
    datanode = storage.kill_a_writer(f"/disturbed/{SHARDS}/", run)
    finish(run)
    storage.assert_hit(datanode)
    assert_replaced(worker, events(disturbed))
    assert digests(disturbed) == expected
    storage.ask("/photographs", "DELETE&recursive=true", "DELETE")
