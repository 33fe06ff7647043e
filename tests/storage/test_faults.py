"""Errors of storage become sentences, and say how long trying again may help."""

from __future__ import annotations

import errno
import pickle
import socket
from pathlib import Path

import pytest

from brain_mri.storage.faults import PATIENCE, StorageError, explain
from brain_mri.storage.reach import check_reachable

URL = "hdfs://namenode:8020/user/me/data"


def answer(exception: str, message: str) -> RuntimeError:
    """What hdfs-native makes of an exception on the NameNode: the debug text of a Rust structure."""
    trace = "\n\tat org.apache.hadoop.hdfs.server.namenode.FSNamesystem.check(FSNamesystem.java:1687)" * 3
    escaped = (message + trace).replace('"', r"\"").replace("\n", r"\n").replace("\t", r"\t")
    return RuntimeError(f'RPCError("{exception}", "{escaped}")')


# What hdfs-native 0.14.7 raised on Hadoop 3.5.0 for faults that were made on purpose.
SAFE_MODE = "org.apache.hadoop.hdfs.server.namenode.SafeModeException"
PLACEMENT = "could only be written to 0 of the 1 minReplication nodes. There are"
SEEN = {
    "safe mode": (
        answer(
            SAFE_MODE,
            'Cannot create file/q/b. Name node is in safe mode.\nIt was turned on manually. Use "hdfs '
            'dfsadmin -safemode leave" to turn safe mode off. NamenodeHostName:localhost',
        ),
        0,
        r'safe mode, so .* cannot be written: .*Use "hdfs dfsadmin -safemode leave" to turn safe mode off\.$',
    ),
    "starting": (
        answer(
            SAFE_MODE,
            "Cannot create file/n/b. Name node is in safe mode.\nThe reported blocks 0 needs additional 7 "
            "blocks to reach the threshold 0.9990 of total blocks 8.\nThe minimum number of live datanodes "
            "is not required. Safe mode will be turned off automatically once the thresholds have been "
            "reached. NamenodeHostName:localhost",
        ),
        PATIENCE,
        r"just started.*needs additional 7 blocks",
    ),
    "permission": (
        answer(
            "org.apache.hadoop.security.AccessControlException",
            'Permission denied: user=bob, access=WRITE, inode="/t":root:supergroup:drwxr-xr-x',
        ),
        0,
        r'not permit this .* user=bob, access=WRITE, inode="/t":root:supergroup:drwxr-xr-x\. Use a storage',
    ),
    "space quota": (
        answer(
            "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException",
            "The DiskSpace quota of /q is exceeded: quota = 1024 B = 1 KB but diskspace consumed = 256.19 MB",
        ),
        0,
        r"data is full, its quota .* quota = 1024 B",
    ),
    "name quota": (
        answer(
            "org.apache.hadoop.hdfs.protocol.NSQuotaExceededException",
            "The NameSpace quota (directories and files) of directory /q is exceeded: quota=3 file count=4",
        ),
        0,
        r"is full, its quota .* quota=3",
    ),
    "no DataNode": (
        answer(
            "java.io.IOException",
            f"File /d/h {PLACEMENT} 0 datanode(s) running and 0 node(s) are excluded in this operation.",
        ),
        PATIENCE,
        r"has no live DataNode",
    ),
    "HDFS full": (
        answer(
            "java.io.IOException",
            f"File /d/h {PLACEMENT} 3 datanode(s) running and 3 node(s) are excluded in this operation.",
        ),
        5,
        r"HDFS is full, or its DataNodes cannot be reached",
    ),
    "blocks missing": (
        RuntimeError('DataTransferError("All DataNodes failed: []")'),
        PATIENCE,
        r"data cannot be read: no live DataNode .* holds all of it",
    ),
    "blocks corrupt": (
        RuntimeError(r'DataTransferError("All DataNodes failed: [DatanodeInfoProto { ip_addr: \"127.0.0.1")'),
        5,
        r"data cannot be read: every replica .* is corrupt or gone",
    ),
    "DataNode lost": (
        RuntimeError('OperationFailed("Failed to complete file in time")'),
        PATIENCE,
        r"Writing .* broke off: a DataNode .* was lost on the way \(Failed to complete file in time\)",
    ),
    "colon": (
        answer("org.apache.hadoop.fs.InvalidPathException", "Invalid path name /user/me/a:b"),
        0,
        r"no name with a colon",
    ),
    "host unknown": (
        OSError("failed to lookup address information: Name or service not known"),
        0,
        r"host of HDFS at namenode:8020 is not known",
    ),
    "something new": (RuntimeError('InternalError("the moon")'), 0, r"data cannot be used: the moon"),
}


@pytest.mark.parametrize("fault", SEEN)
def test_a_fault_that_was_seen_has_its_sentence_and_its_patience(fault: str) -> None:
    error, patience, sentence = SEEN[fault]
    explained = explain(error, URL)
    assert explained.patience == patience
    with pytest.raises(StorageError, match=sentence):
        raise explained
    assert "namenode:8020" in str(explained)
    for noise in ("RPCError", "hadoop.hdfs", "\\n", "\tat", "{", ".."):
        assert noise not in str(explained)


def test_a_refused_connection_is_told_apart_by_asking_the_namenode() -> None:
    refused = OSError("Connection refused (os error 111)")
    explained = explain(refused, "hdfs://127.0.0.1:1/data")  # nothing listens on port 1
    assert explained.patience == PATIENCE
    assert str(explained).startswith("HDFS is not running at 127.0.0.1:1 (Connection refused")
    assert "`kedro cluster up`" in str(explained)


def test_of_several_namenodes_one_that_listens_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        alive = f"127.0.0.1:{server.getsockname()[1]}"
        properties = {
            "fs.defaultFS": "hdfs://service",
            "dfs.ha.namenodes.service": "nn1, nn2",
            "dfs.namenode.rpc-address.service.nn1": "127.0.0.1:1",
            "dfs.namenode.rpc-address.service.nn2": alive,
        }
        entries = [
            f"<property><name>{name}</name><value>{properties[name]}</value></property>"
            for name in properties
        ]
        (tmp_path / "hdfs-site.xml").write_text(f"<configuration>{''.join(entries)}</configuration>")
        monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
        refused = OSError("Connection refused (os error 111)")
        assert str(explain(refused, "hdfs:///data")).startswith("A DataNode of HDFS at service is gone")
    with pytest.raises(StorageError, match=rf"^HDFS is not running at 127\.0\.0\.1:1, {alive} \(Connection"):
        check_reachable("hdfs:///data")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "/data is full"),
        (errno.EROFS, "/data is read-only"),
        (errno.EACCES, "/data: permission denied"),
    ],
)
def test_a_local_disk_is_explained_by_the_number_of_its_error(code: int, sentence: str) -> None:
    explained = explain(OSError(code, "no"), "/data")
    assert str(explained).startswith(sentence)
    assert explained.patience == 0


def test_the_name_of_a_temporary_is_not_shown() -> None:
    assert str(explain(OSError(errno.ENOSPC, "no"), "/data/.a.b.0123456789ab.tmp")).startswith("/data/a.b is")


def test_what_is_explained_stays_so_and_travels_between_processes(tmp_path: Path) -> None:
    error = explain(RuntimeError('DataTransferError("All DataNodes failed: []")'), URL)
    assert explain(error, "elsewhere") is error
    travelled = pickle.loads(pickle.dumps(error))
    assert (type(travelled), str(travelled), travelled.patience) == (StorageError, str(error), PATIENCE)
