"""The web pages of a cluster's daemons: where they are, and asking them within seconds."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import TypeVar
from urllib.parse import urlsplit

from brain_mri.storage.hadoop import DEFAULT_FILESYSTEM

TIMEOUT_SECONDS = 3
CLUSTER_REMEDY = (
    "`kedro cluster up` starts a cluster on this machine; for your own, set HADOOP_CONF_DIR to the folder "
    "of its core-site.xml and hdfs-site.xml."
)

_Answer = TypeVar("_Answer")


class UnreachableError(OSError):
    """A daemon does not answer; the message says which and how.

    Attributes:
        address: where it was looked for.
        remedy: how to mend it.
    """

    def __init__(self, message: str, address: str, remedy: str) -> None:
        super().__init__(message)
        self.address = address
        self.remedy = remedy


def namenode_pages(properties: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the scheme and `host:port` of the web page of every NameNode behind the default filesystem.

    Raises:
        UnreachableError: No HDFS is configured.

    Example:
        >>> namenode_pages({"fs.defaultFS": "hdfs://namenode:8020"})
        ('http', ['namenode:9870'])
    """
    url = urlsplit(properties.get(DEFAULT_FILESYSTEM, ""))
    if url.scheme != "hdfs" or not url.hostname:
        found = url.geturl() or "none"
        raise UnreachableError(f"The default filesystem is not on HDFS but {found}.", found, CLUSTER_REMEDY)
    secure = properties.get("dfs.http.policy") == "HTTPS_ONLY"
    scheme, port = ("https", 9871) if secure else ("http", 9870)
    service = url.netloc
    names = [name.strip() for name in properties.get(f"dfs.ha.namenodes.{service}", "").split(",") if name]
    suffixes = [f".{service}.{name}" for name in names] or [""]
    rpc = [properties.get(f"dfs.namenode.rpc-address{suffix}", service) for suffix in suffixes]
    pages = [
        properties.get(f"dfs.namenode.{scheme}-address{suffix}", f"0.0.0.0:{port}") for suffix in suffixes
    ]
    # A daemon that listens everywhere is asked where its clients find it.
    return scheme, [
        page.replace("0.0.0.0", host.rpartition(":")[0] or host)  # noqa: S104
        for page, host in zip(pages, rpc, strict=True)
    ]


def first_answer(
    daemon: str, addresses: Sequence[str], ask: Callable[[str], _Answer], remedy: str
) -> tuple[str, _Answer]:
    """Ask one address after the other; the first whose answer can be used counts.

    Args:
        daemon: What listens there, for the error.
        addresses: `host:port` of each.
        ask: Called with an address; no answer, or one that cannot be read, passes on to the next.
        remedy: What to do where none answers.

    Returns:
        The address and what `ask` returned for it.

    Raises:
        UnreachableError: None can be used; the message has the reason of each.
    """
    refusals = []
    for address in addresses:
        try:
            return address, ask(address)
        except (OSError, HTTPException, ValueError, KeyError) as error:
            reason = getattr(error, "reason", None) or error  # urllib wraps what the socket said
            refusals.append(f"{address}: {getattr(reason, 'strerror', None) or reason}")
    named = ", ".join(addresses)
    raise UnreachableError(f"No {daemon} answers ({'; '.join(refusals)}).", named, remedy)


def fetch_text(url: str) -> str:
    """Return what a web page answers.

    Raises:
        OSError: There is no answer within `TIMEOUT_SECONDS`, or one that says no.
    """
    # Daemons inside a cluster are asked directly: a proxy for the world outside would only be in the way.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
        return str(answer.read().decode("utf-8"))
