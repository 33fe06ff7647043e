"""The files that Hadoop and Spark read."""

from __future__ import annotations

import re
from pathlib import Path

from brain_mri.cluster.configuration import write_configuration
from brain_mri.cluster.options import ClusterOptions
from brain_mri.cluster.ports import choose_addresses
from brain_mri.cluster.state import LocalCluster, load_cluster
from brain_mri.storage.hadoop import read_properties


def make(folder: Path, **options: object) -> LocalCluster:
    chosen = ClusterOptions(**options)  # type: ignore[arg-type] - tests name options loosely
    return LocalCluster(folder, chosen, choose_addresses(chosen))


def test_hadoop_reads_the_addresses_and_options(tmp_path: Path) -> None:
    cluster = make(tmp_path / "a folder & more", replication=1)
    write_configuration(cluster, Path("/opt/pyspark"))
    properties = read_properties(cluster.environment)
    assert properties["fs.defaultFS"] == f"hdfs://{cluster.addresses['namenode']}"
    assert properties["dfs.namenode.http-address"] == cluster.addresses["namenode_http"]
    assert properties["dfs.replication"] == "1"
    assert properties["hadoop.tmp.dir"] == str(tmp_path / "a folder & more" / "tmp")
    listeners = [value for name, value in properties.items() if re.search(r"address$|hostname$", name)]
    assert listeners
    assert all(value.startswith("127.0.0.1") for value in listeners)


def test_a_cluster_without_yarn_has_no_file_of_an_earlier_one_with_it(tmp_path: Path) -> None:
    yarn = make(tmp_path, yarn=True, worker_memory="2g")
    write_configuration(yarn, Path("/opt/pyspark"))
    properties = read_properties(yarn.environment)
    assert properties["yarn.nodemanager.resource.memory-mb"] == "2048"
    assert properties["yarn.resourcemanager.webapp.address"] == yarn.addresses["resourcemanager_http"]
    defaults = (tmp_path / "conf" / "spark-defaults.conf").read_text(encoding="utf-8")
    assert "spark.yarn.jars local:/opt/pyspark/jars/*\n" in defaults
    write_configuration(make(tmp_path), Path("/opt/pyspark"))
    assert not (tmp_path / "conf" / "yarn-site.xml").exists()
    defaults = (tmp_path / "conf" / "spark-defaults.conf").read_text(encoding="utf-8")
    assert "yarn" not in defaults
    assert "spark.driver.bindAddress 127.0.0.1\n" in defaults
    assert "spark.master.rest.enabled false\n" in defaults


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert load_cluster(tmp_path) is None
    cluster = make(tmp_path, yarn=True, ports={"namenode": 0})
    cluster.save({})
    assert load_cluster(tmp_path) == cluster
    assert cluster.environment["SPARK_MASTER"] == "yarn"
    assert cluster.environment["YARN_CONF_DIR"] == str(tmp_path / "conf")
    standalone = make(tmp_path)
    assert standalone.environment["SPARK_MASTER"] == f"spark://{standalone.addresses['spark_master']}"
    assert "YARN_CONF_DIR" not in standalone.environment


def test_people_are_told_where_the_pages_are_and_how_to_stop(tmp_path: Path) -> None:
    cluster = make(tmp_path / "with space")
    text = cluster.describe()
    assert f"http://{cluster.addresses['namenode_http']}/" in text
    assert f"http://{cluster.addresses['spark_master_http']}/" in text
    assert f"  export HADOOP_CONF_DIR='{tmp_path}/with space/conf'\n" in text
    assert "kedro cluster down" in text
