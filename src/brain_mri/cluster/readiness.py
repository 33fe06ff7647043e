"""Whether the daemons are ready, as they say themselves on their web pages."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import psutil

from brain_mri.cluster.connection import ClusterError
from brain_mri.cluster.daemons import check_alive
from brain_mri.cluster.state import LocalCluster

_LIMIT = 240  # seconds; far more than a busy machine needs
_SAFE_MODE_LIMIT = 20  # seconds in which its reason does not change
_POLL = 0.2
_SAFE_MODE = "the NameNode is in safe mode"
_DATANODE_BEAN = "/jmx?qry=Hadoop:service=DataNode,name=DataNodeInfo"


class AnswerError(ClusterError):
    """A daemon answers with an error, or not at all."""


class ReadinessError(ClusterError):
    """The cluster does not get ready."""


class SafeModeError(ReadinessError):
    """All DataNodes are there, and the NameNode misses blocks all the same. The cluster is up."""


def ask(address: str, path: str, method: str = "GET", timeout: float = 5) -> Any:
    """Ask a daemon's web server, past any proxy, and return what it says as JSON.

    Args:
        address: "host:port".
        path: From the root, with its query.
        method: Of HTTP.
        timeout: Seconds to wait for an answer.

    Raises:
        AnswerError: It answers with an error, or not at all, or with something else.

    Example:
        >>> ask("127.0.0.1:8080", "/json/")["aliveworkers"]  # doctest: +SKIP
        2
    """
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise AnswerError(f"{address} answers {path} with {response.status} {response.reason}.")
        return json.loads(content)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AnswerError(f"{address} does not answer {path}: {error}") from error
    finally:
        connection.close()


def namenode_bean(address: str, name: str) -> dict[str, Any]:
    """What a NameNode says of itself under a name, for example "NameNodeInfo" or "FSNamesystemState".

    Args:
        address: "host:port" of its web server.
        name: Of the bean, as its page `/jmx` lists them.

    Raises:
        AnswerError: It does not answer, or is so young that it has no such bean yet.
    """
    beans = ask(address, f"/jmx?qry=Hadoop:service=NameNode,name={name}")["beans"]
    if not beans:
        raise AnswerError(f"The NameNode at {address} has no {name} yet.")
    return dict(beans[0])


def wait_until_ready(cluster: LocalCluster, started: Mapping[str, psutil.Process]) -> None:
    """Wait until safe mode is off, all DataNodes are live and all workers are registered.

    Args:
        cluster: The cluster.
        started: The daemons that were started just now, by name.

    Raises:
        DaemonError: One of them ended.
        SafeModeError: Blocks are missing.
        ReadinessError: Something is not ready after four minutes.
    """
    begin = last_change = time.monotonic()
    previous = ""
    while missing := what_is_missing(cluster):
        check_alive(started, cluster.folder)
        now = time.monotonic()
        if missing != previous:
            last_change, previous = now, missing
        if missing.startswith(_SAFE_MODE) and now - last_change > _SAFE_MODE_LIMIT:
            raise SafeModeError(
                f"The cluster is up, but {missing} It can be read, not written. If blocks are missing, put "
                f"the folders of the DataNodes back into {cluster.storage} (kedro cluster down, up), or "
                "give the data up: kedro cluster clean"
            )
        if now - begin > _LIMIT:
            raise ReadinessError(
                f"After {_LIMIT} s {missing}. The logs are in {cluster.folder / 'logs'}; `kedro cluster up` "
                "tries again."
            )
        time.sleep(_POLL)


def what_is_missing(cluster: LocalCluster) -> str:
    """Say what a cluster lacks to be ready; empty where it lacks nothing.

    The NameNode and the masters are asked, and each of the others itself too: for some seconds a master
    still counts one that was killed.
    """
    try:
        return _storage_lacks(cluster) or _computing_lacks(cluster)
    except AnswerError as error:
        return str(error)


def _storage_lacks(cluster: LocalCluster) -> str:
    options, addresses = cluster.options, cluster.addresses
    info = namenode_bean(addresses["namenode_http"], "NameNodeInfo")
    for number in range(1, options.datanodes + 1):
        beans = ask(addresses[f"datanode_{number}_http"], _DATANODE_BEAN)["beans"]
        actors = json.loads(beans[0].get("BPServiceActorInfo", "[]")) if beans else []  # absent at first
        if not any(actor["ActorState"] == "RUNNING" for actor in actors):
            return f"datanode-{number} has not registered yet"
    live = namenode_bean(addresses["namenode_http"], "FSNamesystemState")["NumLiveDataNodes"]
    if live < options.datanodes:
        return f"{live} of {options.datanodes} DataNodes are live"
    return f"{_SAFE_MODE}: {info['Safemode']}" if info["Safemode"] else ""


def _computing_lacks(cluster: LocalCluster) -> str:
    options, addresses = cluster.options, cluster.addresses
    for number in range(1, options.workers + 1):
        if options.yarn:
            ask(addresses[f"nodemanager_{number}_http"], "/ws/v1/node/info")
        elif not ask(addresses[f"worker_{number}_http"], "/json/")["masterwebuiurl"]:
            return f"worker-{number} has not registered yet"
    if options.yarn:
        live = ask(addresses["resourcemanager_http"], "/ws/v1/cluster/metrics")["clusterMetrics"][
            "activeNodes"
        ]
    else:
        live = ask(addresses["spark_master_http"], "/json/")["aliveworkers"]
    kind = "NodeManagers" if options.yarn else "Spark workers"
    return "" if live >= options.workers else f"{live} of {options.workers} {kind} are registered"


def make_home(namenode_http: str, user: str, superuser: str) -> None:
    """Make a user's home directory in HDFS, unless it is there.

    Args:
        namenode_http: "host:port" of the NameNode's web server.
        user: Whose home it is.
        superuser: Who runs the NameNode, and so may.

    Raises:
        AnswerError: The NameNode refuses.
    """
    ask(
        namenode_http,
        f"/webhdfs/v1/user/{quote(user)}?op=MKDIRS&user.name={quote(superuser)}",
        method="PUT",
    )
