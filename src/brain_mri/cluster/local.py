"""`up`, `down` and `clean`: a cluster on this machine from nothing to ready, and back."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brain_mri.cluster import daemons
from brain_mri.cluster.configuration import write_configuration
from brain_mri.cluster.connection import STATE_FILE, ClusterError, hadoop_user
from brain_mri.cluster.jars import (
    HADOOP_VERSION,
    HDFS_JARS,
    WEB_PAGES,
    YARN_JARS,
    check_hadoop_version,
    find_jars,
    pyspark_folder,
    unpack_web_pages,
)
from brain_mri.cluster.options import ClusterOptions
from brain_mri.cluster.ports import check_ports, choose_addresses, port_option
from brain_mri.cluster.readiness import SafeModeError, make_home, wait_until_ready
from brain_mri.cluster.roles import daemons_of
from brain_mri.cluster.starting import Starter
from brain_mri.cluster.state import LocalCluster, load_cluster
from brain_mri.cluster.stored import check_stored_data
from brain_mri.spark.java import JavaHome, cache_folder, find_java

Say = Callable[[str], None]

MARK = ".brain-mri-cluster"
"""A file that says whose folder it is: what else `clean` removes there has names that anybody might give."""

_OURS = ("conf", "hdfs", "logs", "tmp", "web", "work", "yarn", STATE_FILE, MARK, "lock")


class ForeignFolderError(ClusterError):
    """The folder holds something, and no cluster that was started here."""


class OtherOptionsError(ClusterError):
    """The cluster is up with other options than were asked for."""


def up(folder: Path, given: Mapping[str, Any], say: Say) -> LocalCluster:
    """Start the cluster of a folder, or what is missing of it, and wait until it is ready.

    Args:
        folder: The cluster's folder.
        given: The options that the user named, as `ClusterOptions` has them.
        say: Receives each line for people.

    Returns:
        The cluster; `cluster.json` in the folder describes it too.

    Raises:
        ForeignFolderError: The folder holds something else.
        ClusterError: It cannot be started; what was started now has been ended again. (But where blocks are
            missing it stays up, so that what is left can be read.)

    Example:
        >>> up(Path(".cluster"), {"workers": 1}, print).environment["SPARK_MASTER"]  # doctest: +SKIP
        'spark://127.0.0.1:7077'
    """
    begin = time.monotonic()
    folder = folder.resolve()
    _refuse_foreign(folder)
    if load_cluster(folder) is None:
        check_ports(ClusterOptions(**given))  # before anything is made
    # Two clusters that start at one moment would choose the same ports and mix their DataNodes.
    with _locked(folder, say), _locked(cache_folder(), say):
        (folder / MARK).touch()
        running = daemons.running_daemons(folder)
        known = load_cluster(folder)
        if not (running and known):
            daemons.stop_all(folder)  # what a start that was broken off left behind
            running, known = {}, None
        if known:
            _refuse_other_options(known, given)
        options = known.options if known else ClusterOptions(**given)
        check_stored_data(folder / "hdfs", options.datanodes)
        cluster = known or LocalCluster(folder, options, choose_addresses(options))
        java, pyspark = find_java(), pyspark_folder()
        check_hadoop_version(pyspark)
        pages, *jars = find_jars((WEB_PAGES, *HDFS_JARS, *(YARN_JARS if options.yarn else ())), java, pyspark)
        _say_surroundings(cluster, java, pages.parent, say)
        if not known:
            write_configuration(cluster, pyspark)
            unpack_web_pages(pages, folder / "web")
            cluster.save({})
        missing = [daemon for daemon in daemons_of(cluster) if daemon.name not in running]
        starter = Starter(cluster, java.path, pyspark, jars)
        try:
            starter.start(missing)
            wait_until_ready(cluster, starter.started)
        except SafeModeError:
            cluster.save(daemons.running_daemons(folder))
            raise
        except BaseException:
            daemons.end(starter.started.values())
            if not known:
                _stop(folder)
            raise
        make_home(cluster.addresses["namenode_http"], hadoop_user(), _superuser())
        cluster.save(daemons.running_daemons(folder))
    names = ", ".join(daemon.name for daemon in missing)
    if not known:
        say(f"Ready after {time.monotonic() - begin:.0f} s.")
    else:
        say("The cluster was up already" + (f"; started again: {names}." if missing else "."))
    return cluster


def down(folder: Path, say: Say) -> None:
    """End the cluster of a folder, also after a crash; its data stays.

    Args:
        folder: The cluster's folder.
        say: Receives each line for people.

    Raises:
        ClusterError: A process cannot be ended.
    """
    folder = folder.resolve()
    stopped = []
    if folder.is_dir():
        with _locked(folder, say):
            stopped = _stop(folder)
    _say_stopped(stopped, f" The data stays in {folder / 'hdfs'}.", folder, say)


def clean(folder: Path, say: Say) -> None:
    """End the cluster of a folder and remove everything that it stored.

    Args:
        folder: The cluster's folder; what else lies there stays.
        say: Receives each line for people.

    Raises:
        ForeignFolderError: It holds no cluster.
        ClusterError: A process cannot be ended.
    """
    folder = folder.resolve()
    _refuse_foreign(folder)
    if folder.is_dir():
        with _locked(folder, say):
            _say_stopped(_stop(folder), "", folder, say)
            for path in (folder / name for name in _OURS):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
    say(f"Removed what the cluster kept in {folder}.")


@contextmanager
def _locked(folder: Path, say: Say) -> Iterator[None]:
    """Let one command at a time change a cluster; the next one waits, and says so."""
    path = folder / "lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"Waiting for another `kedro cluster` command, which holds {path}.")
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Not so where `clean` removed the file meanwhile: then another command may hold the next one.
            if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                yield
                return


def _refuse_foreign(folder: Path) -> None:
    """See that what a folder holds is a cluster that was started here.

    Raises:
        ForeignFolderError: It is something else.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - {"lock"} and MARK not in names:
        raise ForeignFolderError(
            f"{folder} holds {', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}, and no cluster "
            "that `kedro cluster up` started. Name a new or an empty folder in BRAIN_MRI_CLUSTER. (If it is "
            f"such a cluster all the same, make a file {MARK} in it.)"
        )


def _stop(folder: Path) -> list[str]:
    stopped = daemons.stop_all(folder)
    (folder / STATE_FILE).unlink(missing_ok=True)
    return stopped


def _say_stopped(stopped: Sequence[str], then: str, folder: Path, say: Say) -> None:
    say(f"Ended {', '.join(stopped)}.{then}" if stopped else f"No cluster is up in {folder}.")


def _refuse_other_options(cluster: LocalCluster, given: Mapping[str, Any]) -> None:
    other = [
        f"--{name.replace('_', '-')} is {getattr(cluster.options, name)}, not {value}"
        for name, value in given.items()
        if name != "ports" and value != getattr(cluster.options, name)
    ]
    for name, port in given.get("ports", {}).items():
        address = cluster.addresses.get(name, "none")
        if port and not address.endswith(f":{port}"):
            other.append(f"{port_option(name)} is {address.rpartition(':')[2]}, not {port}")
    if other:
        raise OtherOptionsError(
            f"The cluster in {cluster.folder} is up with other options: {'; '.join(other)}. To change them, "
            "run `kedro cluster down` first; the data stays."
        )


def _say_surroundings(cluster: LocalCluster, java: JavaHome, jars: Path, say: Say) -> None:
    """Say what was found of the three variables that users of Hadoop know, and what is used."""
    home, conf = os.environ.get("HADOOP_HOME"), os.environ.get("HADOOP_CONF_DIR")
    say(f"JAVA_HOME        {java.path} (Java {java.version}, from {java.origin})")
    say(
        f"HADOOP_HOME      {f'{home}, not used' if home else 'not set, not needed'}: Hadoop {HADOOP_VERSION} "
        f"comes from PySpark's jars and {jars}"
    )
    say(f"HADOOP_CONF_DIR  {cluster.configuration}")
    if conf and Path(conf).resolve() != cluster.configuration:
        say(
            f"                 Yours is {conf}, and `kedro run --env=cluster` goes there. To use this "
            "cluster: unset HADOOP_CONF_DIR"
        )


def _superuser() -> str:
    """Who the NameNode's process is to Hadoop, whatever `USER` says; that user may do anything."""
    return os.environ.get("HADOOP_USER_NAME") or pwd.getpwuid(os.getuid()).pw_name
