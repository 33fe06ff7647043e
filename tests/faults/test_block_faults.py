"""Blocks are damaged on the disks of DataNodes, or there is no room for new ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from brain_mri.storage.files import open_filesystem
from tests.cluster_runs import Project, finish, names_below, read, refused, results, sentence
from tests.faults import computing
from tests.faults.storage import DATANODES, TABLES, Replica, Storage, corrupted

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.slow]

PACKED = "/02_intermediate/scans.parquet"
ROOM_FOR_TWO_FILES = 2 * 2 * 128 * 2**20  # HDFS books a whole block for each copy of a file that is open


def test_of_a_damaged_replica_the_right_bytes_are_served(
    storage: Storage, project: Project, packed_root: str, undisturbed: dict[str, str]
) -> None:
    # One of every block: whichever replicas readers take, some are damaged ones.
    damaged = list({replica.path.name: replica for replica in packed_replicas(storage)}.values())
    assert len(damaged) > 1
    with (storage.cluster.folder / "conf" / "spark-defaults.conf").open("a") as defaults:
        defaults.write("spark.executorEnv.RUST_LOG warn\n")  # so that hdfs-native says what it met
    with corrupted(*damaged):
        finish(project.run("--pipelines=preprocessing", root=packed_root))
        logs = [path.read_text() for path in storage.cluster.folder.glob("work/*/app-*/*/stderr")]
        assert any("reading from DataNode: ChecksumError" in log for log in logs), "no task met a damaged one"
        assert results(packed_root, TABLES) == undisturbed


def packed_replicas(storage: Storage) -> list[Replica]:
    """All replicas of all blocks of the packed scans."""
    names = [name for name in names_below(f"hdfs:///undisturbed{PACKED}") if name.startswith("part-")]
    return [replica for name in names for replica in storage.replicas(f"/undisturbed{PACKED}/{name}")]


def test_where_all_replicas_are_damaged_the_run_names_the_file_and_ingestion_mends_it(
    storage: Storage, project: Project, new_root: str, undisturbed: dict[str, str]
) -> None:
    finish(project.run("--pipelines=ingestion", root=new_root))
    name = next(name for name in names_below(f"{new_root}{PACKED}") if name.startswith("part-"))
    replicas = storage.replicas(f"/new{PACKED}/{name}")
    assert len(replicas) == 2
    with corrupted(*replicas):
        output = finish(project.run("--pipelines=preprocessing", root=new_root), status=1)
        assert f"/new{PACKED}/{name}" in sentence(output)
        assert "_SUCCESS" not in names_below(f"{new_root}/05_model_input/model_inputs_train.parquet")
        output = finish(project.run("--pipelines=ingestion,preprocessing", root=new_root))
        assert "sent anew" in output
    assert results(new_root, TABLES) == undisturbed


def test_a_full_quota_stops_a_run_and_an_upload_and_leaves_no_half_file(
    storage: Storage, project: Project, new_root: str, undisturbed: dict[str, str]
) -> None:
    storage.ask("/new", "MKDIRS", "PUT")
    storage.administrate("-setSpaceQuota", "1", "/new")
    assert f"{new_root}/check is full, its quota on HDFS" in refused(project.run(root=new_root))
    assert names_below(new_root) == []

    storage.administrate("-setSpaceQuota", str(ROOM_FOR_TWO_FILES), "/new")
    said = sentence(finish(project.run("--pipelines=ingestion", root=new_root), status=1))
    assert re.search(rf"/new{PACKED}/\S+ is full, its quota on HDFS", said)
    assert storage.ask(f"/new{PACKED}", "LISTSTATUS")["FileStatuses"]["FileStatus"], "the upload had begun"
    assert_only_whole_files(new_root)
    storage.administrate("-clrSpaceQuota", "/new")
    finish(project.run("--pipelines=ingestion", root=new_root))
    found = results(new_root, ["ingestion"])
    assert found == {name: undisturbed[name] for name in found}


def test_datanodes_that_get_full_stop_an_upload_and_later_runs_with_one_sentence(
    storage: Storage, project: Project, new_root: str, undisturbed: dict[str, str]
) -> None:
    run = project.run("--pipelines=ingestion", root=new_root)
    with ExitStack() as stack:
        # The run stands still until there is no room: it meets that and not DataNodes that are gone.
        with storage.caught(f"{PACKED}/", run), computing.frozen(psutil.Process(run.pid)):
            stack.enter_context(full(storage))
        said = sentence(finish(run, status=1))
        assert re.search(rf"takes data for \S+/new{PACKED}/\S+: HDFS is full", said)
        assert_only_whole_files(new_root)
        assert re.search(r"takes data for \S+/new/check: HDFS is full", refused(project.run(root=new_root)))
        assert results("hdfs:///undisturbed", TABLES) == undisturbed, "what is stored can still be read"
    finish(project.run("--pipelines=ingestion", root=new_root))
    found = results(new_root, ["ingestion"])
    assert found == {name: undisturbed[name] for name in found}


def assert_only_whole_files(root: str) -> None:
    """See that every visible table of a broken-off upload is as in the undisturbed run, and unfinished."""
    filesystem, path = open_filesystem(root)
    names = [str(name)[len(path) + 1 :] for name in filesystem.find(path)]
    visible = [name for name in names if name.endswith(".parquet") and "/." not in name]
    assert all(read(root, name) == read("hdfs:///undisturbed", name) for name in visible)
    assert PACKED[1:] + "/_SUCCESS" not in names


@contextmanager
def full(storage: Storage) -> Iterator[None]:
    """Let the DataNodes reserve all of their disks for others: HDFS has no room then."""
    configuration = storage.cluster.folder / "conf" / "hdfs-site.xml"
    before = configuration.read_text(encoding="utf-8")
    reserve = "<property><name>dfs.datanode.du.reserved.pct</name><value>100</value></property>"
    calculator = (
        "<property><name>dfs.datanode.du.reserved.calculator</name><value>org.apache.hadoop.hdfs.server."
        "datanode.fsdataset.impl.ReservedSpaceCalculator$ReservedSpaceCalculatorPercentage</value></property>"
    )
    changed = before.replace("</configuration>", f"{reserve}{calculator}</configuration>")
    try:
        restart_datanodes(storage, changed)
        state = storage.cluster.namenode()
        assert state["CapacityRemaining"] == 0, "the DataNodes must be full"
        yield
    finally:
        restart_datanodes(storage, before)


def restart_datanodes(storage: Storage, configuration: str) -> None:
    (storage.cluster.folder / "conf" / "hdfs-site.xml").write_text(configuration, encoding="utf-8")
    for number in DATANODES:
        storage.cluster.kill(f"datanode-{number}")
    storage.cluster.up()
