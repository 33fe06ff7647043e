"""DataNodes are killed while a run uses them: it ends as an undisturbed one does, or says why not."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest

from brain_mri.storage.files import open_filesystem
from tests.cluster_runs import Command, Project, finish, names_below, read, results, sentence
from tests.faults.storage import PROC_NET_TCP, TABLES, Storage

pytestmark = [pytest.mark.cluster, pytest.mark.spark, pytest.mark.slow]

PACKED = "/02_intermediate/scans.parquet"
TRAIN = "/05_model_input/model_inputs_train.parquet"
# Tasks of a run write too; these only read, as often as it takes.
READ = """
import hashlib, os, sys
from brain_mri.spark import session
from brain_mri.spark.launchers import SparkLauncher
from brain_mri.storage.files import open_filesystem, read_file

def digest(url):
    return f"{url} {hashlib.sha256(read_file(*open_filesystem(url))).hexdigest()}"

session.configure({"spark.master": os.environ["SPARK_MASTER"]})
print(*SparkLauncher().map(digest, 10 * sys.argv[1:]), sep="\\n")
"""
# Small row groups, so that Spark's own writer sends data all the time and not only when it closes a part.
SPARK_WRITE = """
import os, sys
from brain_mri.spark import session
session.configure({"spark.master": os.environ["SPARK_MASTER"]})
frame = session.get_session().read.parquet(sys.argv[1])
frame = frame.crossJoin(session.get_session().range(8)).repartition(4).select("scan_id", "content")
frame.write.option("parquet.block.size", 65536).parquet(sys.argv[2])
"""


def test_a_datanode_killed_during_an_upload_costs_nothing(
    storage: Storage, project: Project, new_root: str, undisturbed: dict[str, str]
) -> None:
    run = project.run("--pipelines=ingestion", root=new_root)
    hit = storage.kill_a_writer(f"{PACKED}/", run)
    finish(run)
    storage.assert_hit(hit)
    assert storage.modified(f"/new{PACKED}/_SUCCESS") > hit.at
    found = results(new_root, ["ingestion"])
    assert found == {name: undisturbed[name] for name in found}


def test_a_datanode_killed_while_tasks_write_model_inputs_costs_nothing(
    storage: Storage, project: Project, packed_root: str, undisturbed: dict[str, str]
) -> None:
    run = project.run("--pipelines=preprocessing", root=packed_root)
    hit = storage.kill_a_writer("/05_model_input/model_inputs_", run)
    finish(run)
    storage.assert_hit(hit)
    assert "/.part-" in hit.file
    assert results(packed_root, TABLES) == undisturbed


@pytest.mark.skipif(not PROC_NET_TCP.exists(), reason="only Linux says which requests wait for an answer")
def test_a_datanode_killed_while_tasks_read_scans_costs_nothing(
    storage: Storage, project: Project, root: str
) -> None:
    names = [name for name in names_below(f"{root}{PACKED}") if name.startswith("part-")]
    environment = {**project.environment, **storage.cluster.environment}
    urls = [f"{root}{PACKED}/{name}" for name in names]
    tasks = Command([sys.executable, "-c", READ, *urls], project.folder, environment)
    number = storage.kill_a_reader(tasks)
    output = finish(tasks)
    storage.wait_for(lambda: number in storage.lost(), "the NameNode to miss it")
    digests = {
        url: hashlib.sha256(read(root, f"{PACKED}/{url.rpartition('/')[2]}")).hexdigest() for url in urls
    }
    assert set(re.findall(r"(hdfs:\S+) ([0-9a-f]{64})", output)) == set(digests.items())


def test_a_datanode_killed_during_a_write_of_spark_itself_costs_nothing(
    storage: Storage, project: Project, root: str, new_root: str
) -> None:
    target = f"{new_root}/copy.parquet"
    environment = {**project.environment, **storage.cluster.environment}
    write = Command(
        [sys.executable, "-c", SPARK_WRITE, f"{root}{PACKED}", target], project.folder, environment
    )
    hit = storage.kill_a_writer("/copy.parquet/_temporary/", write)
    finish(write)
    storage.assert_hit(hit)
    assert storage.modified("/new/copy.parquet/_SUCCESS") > hit.at
    written, packed = contents(target), contents(f"{root}{PACKED}")
    assert written == Counter({scan: 8 * count for scan, count in packed.items()})


def contents(url: str) -> Counter[tuple[str, str]]:
    """How often each scan, by id and sha256, is in a folder of parquet parts."""
    filesystem, path = open_filesystem(url)
    found: Counter[tuple[str, str]] = Counter()
    for name in filesystem.ls(path, detail=False):
        if name.rpartition("/")[2].startswith("part-"):
            with filesystem.open(name, "rb") as stream:
                rows = pq.read_table(stream, columns=["scan_id", "content"], pre_buffer=False).to_pylist()
            found.update((row["scan_id"], hashlib.sha256(row["content"]).hexdigest()) for row in rows)
    return found


def test_without_two_of_three_datanodes_a_run_says_so_and_goes_on_once_they_are_back(
    storage: Storage, project: Project, root: str, undisturbed: dict[str, str]
) -> None:
    pair = storage.pair_with_blocks(f"/undisturbed{PACKED}")
    smaller = "preprocessing.image_size=32"
    run = project.run("--pipelines=preprocessing", root=root, parameters=smaller)
    with storage.caught("/05_model_input/", run):
        for number in pair:
            storage.cluster.kill(f"datanode-{number}")
    output = finish(run, status=1, timeout=180)
    storage.wait_for(lambda: storage.lost() == set(pair), "the NameNode to miss both")
    storage.wait_for(lambda: storage.cluster.namenode("FSNamesystem")["MissingBlocks"], "missing blocks")
    said = sentence(output)  # reading or writing, whichever fails first
    assert re.search(r"hdfs://\S+ cannot be (read|used|written)", said)
    assert "DataNode" in said
    assert "kedro cluster status" in said
    storage.mend()
    assert results(root, TABLES) == undisturbed, "what was there before must stay as it was"
    finish(project.run("--pipelines=preprocessing", root=root, parameters=smaller))
    assert results(root, TABLES) != undisturbed
    finish(project.run("--pipelines=preprocessing", root=root))
    assert results(root, TABLES) == undisturbed
