"""Which NameNode a URL leads to, by Hadoop's configuration, and which filesystem it gives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import fsspec
import pytest

from brain_mri.storage.faults import StorageError
from brain_mri.storage.files import open_filesystem
from brain_mri.storage.hadoop import namenode
from brain_mri.storage.retry import no_repeats

NOWHERE = "hdfs://127.0.0.1:1"  # nothing listens on port 1


def write_site(folder: Path, properties: Mapping[str, str], name: str = "core-site.xml") -> str:
    """A Hadoop configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in properties.items())
    (folder / name).write_text(f'<?xml version="1.0"?>\n<configuration>{nodes}</configuration>')
    return str(folder)


@pytest.mark.parametrize(
    ("default", "url", "expected"),
    [
        ("hdfs://one:9000", "hdfs:///data", "one:9000"),
        ("hdfs://one", "hdfs:///data", "one:8020"),
        ("hdfs://one:9000/", "hdfs://two/data", "two:8020"),
        ("hdfs://one:9000", "hdfs://two:8021/data", "two:8021"),
        ("hdfs://service", "hdfs:///data", "service"),
        ("file:///", "hdfs:///data", ""),
    ],
)
def test_the_namenode_of_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str, url: str, expected: str
) -> None:
    write_site(tmp_path, {"dfs.ha.namenodes.service": "nn1,nn2"}, "hdfs-site.xml")
    monkeypatch.setenv("HADOOP_CONF_DIR", write_site(tmp_path, {"fs.defaultFS": default}))
    assert namenode(url) == expected


def test_the_configuration_is_found_below_hadoop_home_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.setenv("HADOOP_HOME", str(tmp_path))
    write_site(tmp_path / "etc" / "hadoop", {"fs.defaultFS": "hdfs://one:9000"})
    assert namenode() == "one:9000"


@pytest.mark.parametrize("configured", [True, False])
def test_without_a_namenode_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    said = "HADOOP_CONF_DIR is not set"
    if configured:
        monkeypatch.setenv("HADOOP_CONF_DIR", write_site(tmp_path, {"fs.defaultFS": "file:///"}))
        said = f"the Hadoop configuration is {tmp_path}"
    with pytest.raises(StorageError, match=f"{said}.*kedro cluster up.*set HADOOP_CONF_DIR"):
        open_filesystem("hdfs:///user/me")


def test_another_configuration_in_the_same_process_gives_another_filesystem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number in ("one", "two", "one"):
        site = write_site(tmp_path / number, {"fs.defaultFS": f"hdfs://{number}:9000"})
        monkeypatch.setenv("HADOOP_CONF_DIR", site)
        found.append(open_filesystem("hdfs:///user/me")[0])
    assert found[0] is found[2]
    assert [hdfs.storage_options["fs.defaultFS"] for hdfs in found[:2]] == [
        "hdfs://one:9000",
        "hdfs://two:9000",
    ]


def test_the_client_gives_up_soon_and_sooner_if_the_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", write_site(tmp_path / "default", {"fs.defaultFS": NOWHERE}))
    assert 0.1 < seconds_to_give_up() < 5, "hdfs-native's own default is three minutes"
    assert seconds_to_give_up(**{"dfs.client.failover.max.attempts": "0"}) < 0.1
    write_site(tmp_path / "user", {"dfs.client.failover.max.attempts": "0"}, "hdfs-site.xml")
    monkeypatch.setenv("HADOOP_CONF_DIR", write_site(tmp_path / "user", {"fs.defaultFS": NOWHERE}))
    assert seconds_to_give_up() < 0.1


def seconds_to_give_up(**options: str) -> float:
    filesystem, path = open_filesystem("hdfs:///user/me", **options)
    begin = time.monotonic()
    with no_repeats(), pytest.raises(StorageError, match="HDFS is not running"):
        filesystem.info(path)
    return time.monotonic() - begin


@pytest.mark.parametrize("question", ["exists", "isdir", "isfile", "ls", "find", "glob"])
def test_a_question_that_cannot_be_asked_has_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", write_site(tmp_path, {"fs.defaultFS": NOWHERE}))
    filesystem, path = open_filesystem("hdfs:///user/me/*")
    with no_repeats(), pytest.raises(StorageError, match="HDFS is not running"):
        getattr(filesystem, question)(path)


def test_others_in_this_process_get_the_same_filesystem_through_fsspec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", write_site(tmp_path, {"fs.defaultFS": NOWHERE}))
    assert type(fsspec.core.url_to_fs("hdfs:///user/me")[0]) is type(open_filesystem("hdfs:///user/me")[0])


@pytest.mark.parametrize("name", ["a#1", "a?b", "a;b", "a%20b", "a::b", "ä [1] *"])
@pytest.mark.parametrize("start", ["hdfs:///user", "hdfs://one:9000/user"])
def test_a_path_on_hdfs_is_taken_literally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, name: str
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", write_site(tmp_path, {"fs.defaultFS": "hdfs://one:9000"}))
    filesystem, path = open_filesystem(f"{start}/{name}")
    assert path == f"/user/{name}"
    assert filesystem.unstrip_protocol(path) == f"{start}/{name}"
