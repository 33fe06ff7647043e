"""What can be wrong with storage, in sentences for people.

hdfs-native raises `OSError` without a number for a connection that fails, and `RuntimeError` with the debug
text of its Rust error for what the NameNode or a DataNode answered. The texts below were all seen on a real
HDFS (Hadoop 3.5.0, hdfs-native 0.14.7).
"""

from __future__ import annotations

import errno
import re
import socket
from dataclasses import dataclass

from brain_mri.storage.hadoop import configuration_folder, namenode, namenode_addresses

PATIENCE = 25.0
"""Seconds for which it is tried again where the storage may come back.

A NameNode restarts in 5 to 10, on a busy machine in 20; and after half a minute people want to know.
"""

_SHORT = 5.0  # a DataNode that has just started takes no data yet, or names replicas that it then cannot read
_PROBE = 2.0  # seconds
_TEMPORARY = re.compile(r"(?<=/)\.([^/]+)\.[0-9a-f]{12}\.(tmp|old)(?=/|$)")  # `files.temporary_name`


class StorageError(OSError):
    """The storage cannot be used; the message says where, what is wrong, and what to do.

    Attributes:
        patience: Seconds for which trying again may help; 0 where it does not.
    """

    def __init__(self, message: str, patience: float = 0.0) -> None:
        super().__init__(message)
        self.patience = patience


@dataclass(frozen=True)
class _Fault:
    """How an error text is recognised, for how long trying again may help, and what to tell."""

    pattern: str
    patience: float
    sentence: str


_FAULTS = (
    _Fault(
        r"safe mode.*turned off automatically",
        PATIENCE,
        "HDFS at {namenode} is in safe mode: its NameNode has just started and waits until the DataNodes "
        "have reported their blocks: {detail}. Try again in a minute; if it stays so, DataNodes are missing, "
        "or blocks are lost (`kedro cluster status`).",
    ),
    _Fault(
        r"safe mode",
        0,
        "HDFS at {namenode} is in safe mode, so {url} cannot be written: {detail}.",
    ),
    _Fault(
        r"AccessControlException|AuthorizationException",
        0,
        "HDFS at {namenode} does not permit this on {url}: {detail}. Use a storage root of your own, ask its "
        "owner for the right, or act as another user (HADOOP_USER_NAME, where HDFS does without Kerberos).",
    ),
    _Fault(
        r"QuotaExceededException",
        0,
        "{url} is full, its quota on HDFS at {namenode} is used up: {detail}. Remove what is not needed, or "
        "ask for a larger quota.",
    ),
    _Fault(
        r"could only be written to 0 .*There are 0 datanode",
        PATIENCE,
        "HDFS at {namenode} has no live DataNode, so {url} cannot be written. Look for the reason in their "
        "logs and start them (`kedro cluster status` shows them; `kedro cluster up` starts those here).",
    ),
    _Fault(
        r"could only be written to",
        _SHORT,
        "No DataNode of HDFS at {namenode} takes data for {url}: HDFS is full, or its DataNodes cannot be "
        "reached. Compare capacity and use (`kedro cluster status`), free space or add DataNodes.",
    ),
    _Fault(
        r"All DataNodes failed: \[\]|BlocksNotFound",
        PATIENCE,
        "{url} cannot be read: no live DataNode of HDFS at {namenode} holds all of it. Start the DataNodes "
        "that are gone (`kedro cluster status`); if none is, the file is lost: remove it and run again.",
    ),
    _Fault(
        r"All DataNodes failed|ChecksumError",
        _SHORT,
        "{url} cannot be read: every replica of one of its blocks on HDFS at {namenode} is corrupt or gone "
        "(`hdfs fsck` may still call it healthy). Check the DataNodes and their disks; if they are well, "
        "the file is lost: remove it and run again.",
    ),
    _Fault(
        r"OperationFailed|DataTransferError|replay packets|datanode found",
        PATIENCE,
        "Writing {url} broke off: a DataNode of HDFS at {namenode} was lost on the way ({detail}). "
        "`kedro cluster status` shows which are left.",
    ),
    _Fault(
        r"No fs\.defaultFS|No NameNode hosts",
        0,
        "{url} is on HDFS, but there is no NameNode's address: {configuration}. `kedro cluster up` starts an "
        "HDFS here; for one that runs elsewhere, set HADOOP_CONF_DIR to the folder with its core-site.xml.",
    ),
    _Fault(
        r"SASL|GSSAPI|authentication is not enabled",
        0,
        "HDFS at {namenode} does not accept who you are: {detail}. Where it uses Kerberos, run `kinit` and "
        "check hadoop.security.authentication in core-site.xml.",
    ),
    _Fault(
        r"lookup address",
        0,
        "The host of HDFS at {namenode} is not known here ({detail}). Check the storage root and "
        "fs.defaultFS: {configuration}.",
    ),
    _Fault(
        r"Invalid path name",
        0,
        "HDFS takes no name with a colon in it: {url}. Rename it and run again.",
    ),
    _Fault(
        r"StandbyException|RetriableException",
        PATIENCE,
        "HDFS at {namenode} is not ready: {detail}. Try again in a minute; see the NameNode's log.",
    ),
    _Fault(
        r"os error|listener disconnected|timed? ?out|end of file|[Ee]arly eof|[Cc]onnection",
        PATIENCE,
        "",  # `_connection_sentence` finds out who does not answer
    ),
)

_LOCAL = {
    errno.ENOSPC: "{url} is full. Free space, or choose another storage root.",
    errno.EDQUOT: "{url} is full, its quota is used up. Free space, or choose another storage root.",
    errno.EROFS: "{url} is read-only. Choose another storage root, or mount it for writing.",
    errno.EACCES: "{url}: permission denied. Choose another storage root, or ask its owner.",
    errno.EPERM: "{url}: permission denied. Choose another storage root, or ask its owner.",
    errno.ENOTDIR: "{url} lies below a file, not a folder. Choose another storage root.",
    errno.EEXIST: "{url} is a file, not a folder. Choose another storage root.",
}


def explain(error: BaseException, url: str) -> StorageError:
    """Say in one sentence what is wrong, where, and how to mend it.

    Args:
        error: What hdfs-native, or the local disk, raised.
        url: What was read or written.

    Returns:
        The error itself if it is explained already.

    Example:
        >>> print(explain(OSError(28, "No space left on device"), "/data"))
        /data is full. Free space, or choose another storage root.
    """
    if isinstance(error, StorageError):
        return error
    url = _TEMPORARY.sub(r"\1", url)
    code = getattr(error, "errno", None)
    if code in _LOCAL:
        return StorageError(_LOCAL[code].format(url=url))
    text = plain(error)
    for fault in _FAULTS:
        if code is None and re.search(fault.pattern, text, re.DOTALL):
            words = {
                "url": url,
                "namenode": namenode(url),
                "detail": _message(text),
                "configuration": _configuration(),
            }
            sentence = fault.sentence.format(**words) or _connection_sentence(url, _message(text))
            return StorageError(sentence, fault.patience)
    return StorageError(f"{url} cannot be used: {_message(text)} ({type(error).__name__})")


def plain(error: BaseException) -> str:
    """The text of an error of hdfs-native without its escapes and the NameNode's stack trace."""
    text = str(error).replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')
    return re.split(r"\n\tat ", text)[0].strip()


def _message(text: str) -> str:
    """What the NameNode said, in one line, without the name of the Rust error and the Java exception."""
    text = re.sub(r'^\w+\("(?:[\w.$]+", ")?', "", text).removesuffix('")')
    text = re.sub(r"NamenodeHostName:\S+", "", text)
    return re.sub(r"\s+", " ", text)[:300].rstrip(" .")


def _configuration() -> str:
    folder = configuration_folder()
    return f"the Hadoop configuration is {folder}" if folder else "HADOOP_CONF_DIR is not set"


def _connection_sentence(url: str, detail: str) -> str:
    """Whether the NameNode or a DataNode is meant by a connection that fails; the text is the same."""
    address, namenodes = namenode(url), namenode_addresses(url)
    if not any(_listens(candidate) for candidate in namenodes):
        return (
            f"HDFS is not running at {', '.join(namenodes)} ({detail}). `kedro cluster up` starts one on "
            f"this machine; for another, check its NameNode and its address: {_configuration()}."
        )
    if "refused" in detail:
        return (
            f"A DataNode of HDFS at {address} is gone, so {url} cannot be used ({detail}). `kedro cluster "
            "status` shows which are live."
        )
    return (
        f"The connection to HDFS at {address} broke while {url} was used ({detail}): its NameNode "
        "or a DataNode restarts, or something else listens there. `kedro cluster status` shows what is live."
    )


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _PROBE).close()
    except (OSError, ValueError):
        return False
    return True
