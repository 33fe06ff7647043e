"""The Hadoop configuration is read as Hadoop reads it, and a root on another NameNode is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from brain_mri.storage.hadoop import (
    HadoopConfigurationError,
    check_storage_root,
    default_filesystem,
    read_properties,
    resourcemanager_addresses,
)


def write_configuration(folder: Path, file: str, **properties: str) -> dict[str, str]:
    """Write a file of Hadoop's configuration; "__" stands for a dot, a value "!x" for the final value x."""
    entries = []
    for name, value in properties.items():
        final = "<final>true</final>" if value.startswith("!") else ""
        text = f"<name> {name.replace('__', '.')}\n</name><value> {value.removeprefix('!')} </value>"
        entries.append(f"<property>{text}{final}</property>")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(f"<configuration>{''.join(entries)}</configuration>", encoding="utf-8")
    return {"HADOOP_CONF_DIR": str(folder)}


def test_nothing_is_configured_where_no_folder_is_named_or_it_is_empty(tmp_path: Path) -> None:
    assert read_properties({}) == read_properties({"HADOOP_CONF_DIR": str(tmp_path)}) == {}
    assert default_filesystem({"HADOOP_CONF_DIR": str(tmp_path / "absent")}) is None


def test_later_files_win_but_not_over_final_properties(tmp_path: Path) -> None:
    write_configuration(tmp_path, "core-site.xml", a="first", b="!kept", fs__defaultFS="hdfs://one")
    environ = write_configuration(tmp_path, "hdfs-site.xml", a="second", b="lost")
    assert read_properties(environ) == {"a": "second", "b": "kept", "fs.defaultFS": "hdfs://one"}
    assert default_filesystem(environ) == "hdfs://one"


def test_yarn_may_have_a_folder_of_its_own(tmp_path: Path) -> None:
    environ = write_configuration(tmp_path / "hadoop", "core-site.xml", a="1")
    write_configuration(tmp_path / "yarn", "yarn-site.xml", b="2")
    assert read_properties({**environ, "YARN_CONF_DIR": str(tmp_path / "yarn")}) == {"a": "1", "b": "2"}


def test_references_are_replaced_by_properties_and_variables(tmp_path: Path) -> None:
    environ = write_configuration(
        tmp_path,
        "core-site.xml",
        fs__defaultFS="hdfs://${namenode}:${env.PORT}",
        namenode="${host}.example.org",
        host="master",
        unknown="${nobody}",
        itself="${itself}",
    )
    properties = read_properties({**environ, "PORT": "8021"})
    assert properties["fs.defaultFS"] == "hdfs://master.example.org:8021"
    assert (properties["unknown"], properties["itself"]) == ("${nobody}", "${itself}")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "core-site.xml").write_text("<configuration><property>")
    with pytest.raises(HadoopConfigurationError, match=r"core-site\.xml cannot be read.*HADOOP_CONF_DIR"):
        read_properties({"HADOOP_CONF_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    ("root", "configured"),
    [
        ("data", None),
        ("s3://bucket/brain_mri", None),
        ("hdfs:///user/ada", "hdfs://namenode:8021"),
        ("hdfs://namenode/user/ada", "hdfs://namenode:8020/"),
        ("hdfs://NameNode:8020/user/ada", "hdfs://namenode"),
    ],
)
def test_a_root_on_the_configured_filesystem_is_right(
    tmp_path: Path, root: str, configured: str | None
) -> None:
    environ = write_configuration(tmp_path, "core-site.xml", fs__defaultFS=configured) if configured else {}
    check_storage_root(root, environ)


@pytest.mark.parametrize("root", ["hdfs://other:8020/user/ada", "hdfs://namenode:9000/user/ada"])
def test_a_root_on_another_namenode_is_refused_by_both_names(tmp_path: Path, root: str) -> None:
    environ = write_configuration(tmp_path, "core-site.xml", fs__defaultFS="hdfs://namenode:8020")
    with pytest.raises(HadoopConfigurationError, match=r"hdfs://namenode:8020") as refusal:
        check_storage_root(root, environ)
    assert root.removesuffix("/user/ada") in str(refusal.value)


def test_hdfs_without_a_configuration_says_how_to_get_one() -> None:
    with pytest.raises(HadoopConfigurationError, match=r"not set.*kedro cluster up"):
        check_storage_root("hdfs:///user/ada", {})


def test_resourcemanagers_are_found_by_host_address_or_number() -> None:
    assert resourcemanager_addresses({"yarn.resourcemanager.hostname": "rm"}) == ["rm:8032"]
    assert resourcemanager_addresses(
        {
            "yarn.resourcemanager.ha.rm-ids": "rm1, rm2",
            "yarn.resourcemanager.hostname.rm1": "one",
            "yarn.resourcemanager.webapp.address.rm2": "two:80",
        },
        "webapp.address",
    ) == ["one:8088", "two:80"]
