"""How tests break an HDFS, and how they see from its own state that the fault fell where it should."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from brain_mri.cluster import daemons
from tests.cluster_runs import Command
from tests.clusters import Cluster

DATANODES = (1, 2, 3)
TABLES = ("ingestion", "preprocessing")
PROC_NET_TCP = Path("/proc/net/tcp")


@dataclass(frozen=True)
class Hit:
    """A DataNode that was killed at its work.

    Attributes:
        number: Which.
        block: The block that it was receiving.
        file: The file that the block is of, as the NameNode says.
        at: When, in seconds since 1970.
    """

    number: int
    block: str
    file: str
    at: float


@dataclass(frozen=True)
class Replica:
    """A copy of a block, as a file on the disk of a DataNode."""

    number: int
    path: Path


class Storage:
    """The HDFS of a cluster that may be broken."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @contextmanager
    def caught(self, below: str, run: Command, timeout: float = 240) -> Iterator[Hit]:
        """Freeze a DataNode while it receives a block of a file below a folder, until the context ends.

        While it is frozen, the block cannot be finished: what is seen is still so when something is killed.

        Args:
            below: Part of the file's path.
            run: What writes; it must not end before.
            timeout: In seconds.
        """
        others: set[str] = set()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert run.poll() is None, f"ended before a block was seen below {below}:\n{run.output}"
            for number in DATANODES:
                for block in self._received(number) - others:
                    others.add(block)
                    with frozen(self.datanode(number)):
                        file = self.file_of(block)
                        if below in file and block in self._received(number):
                            yield Hit(number, block, file, time.time())
                            return
            time.sleep(0.001)
        raise AssertionError(f"no DataNode was seen receiving a block below {below}:\n{run.output}")

    def kill_a_writer(self, below: str, run: Command) -> Hit:
        """Kill a DataNode while it receives a block of a file below a folder."""
        with self.caught(below, run) as hit:
            daemons.end([self.datanode(hit.number)], signals=("kill",))
        return hit

    def kill_a_reader(self, run: Command, timeout: float = 240) -> int:
        """Kill a DataNode while the request of a task waits for its answer; the tasks must only read.

        All DataNodes are frozen as soon as a task is there, so it does not matter which of them it asks.

        Returns:
            Its number.
        """
        ports = {
            number: int(self.cluster.addresses[f"datanode_{number}"].rpartition(":")[2])
            for number in DATANODES
        }
        nodes = {number: self.datanode(number) for number in DATANODES}
        deadline = time.monotonic() + timeout
        while not self._tasks():
            assert run.poll() is None, f"ended before there was a task:\n{run.output}"
            assert time.monotonic() < deadline, f"waited in vain for a task:\n{run.output}"
        with ExitStack() as stack:
            for node in nodes.values():
                stack.enter_context(frozen(node))
            while time.monotonic() < deadline:
                tasks = self._tasks()
                for number, port in ports.items():
                    if _unread(port) & _connected(tasks, port):
                        daemons.end([nodes[number]], signals=("kill",))
                        return number
        raise AssertionError(f"no task was seen reading:\n{run.output}")

    def _tasks(self) -> list[psutil.Process]:
        """The processes of Python in which tasks run."""
        processes = [process for _, process in daemons.processes_of(self.cluster.folder)]
        return [process for process in processes if _is_of_tasks(process)]

    def datanode(self, number: int) -> psutil.Process:
        """The process of a DataNode."""
        return self.cluster.processes[f"datanode-{number}"]

    def assert_hit(self, hit: Hit) -> None:
        """See that the killed DataNode never finished the block, and that the NameNode misses it."""
        assert hit.block in self._received(hit.number), "the block was finished before"
        self.wait_for(lambda: hit.number in self.lost(), f"the NameNode to miss DataNode {hit.number}")

    def _received(self, number: int) -> set[str]:
        """Blocks that a DataNode is receiving: replicas being written, on its disk."""
        names: set[str] = set()
        for folder in self.cluster.folder.glob(f"hdfs/data-{number}/current/BP-*/current/rbw"):
            names |= {path.name for path in folder.iterdir() if path.suffix != ".meta"}
        return names

    def lost(self) -> set[int]:
        """DataNodes that the NameNode counts as dead, or has not heard of for 3 s."""
        info = self.cluster.namenode("NameNodeInfo")
        nodes = {**json.loads(info["LiveNodes"]), **json.loads(info["DeadNodes"])}
        numbers = {self.cluster.addresses[f"datanode_{number}"]: number for number in DATANODES}
        return {numbers[node["xferaddr"]] for node in nodes.values() if node["lastContact"] >= 3}

    def file_of(self, block: str) -> str:
        """The path of the file that a block is of; empty where there is none any more."""
        address = self.cluster.addresses["namenode_http"]
        text = _get(f"http://{address}/fsck?ugi=root&blockId={block}")
        found = re.search(r"^Block belongs to: (.*)$", text, re.MULTILINE)
        return found[1] if found else ""

    def replicas(self, path: str) -> list[Replica]:
        """The copies of the first block of a file."""
        blocks = self.ask(path, "GET_BLOCK_LOCATIONS")["LocatedBlocks"]["locatedBlocks"]
        name = f"blk_{blocks[0]['block']['blockId']}"
        return [
            Replica(number, file)
            for number in DATANODES
            for file in self.cluster.folder.glob(f"hdfs/data-{number}/current/BP-*/current/**/{name}")
        ]

    def pair_with_blocks(self, folder: str) -> tuple[int, ...]:
        """Two DataNodes that together hold all copies of a part below a folder."""
        files = self.ask(folder, "LISTSTATUS")["FileStatuses"]["FileStatus"]
        name = next(file["pathSuffix"] for file in files if file["pathSuffix"].startswith("part-"))
        return tuple(replica.number for replica in self.replicas(f"{folder}/{name}"))

    def modified(self, path: str) -> float:
        """When a file was finished, in seconds since 1970."""
        return float(self.ask(path, "GETFILESTATUS")["FileStatus"]["modificationTime"]) / 1000

    def ask(self, path: str, operation: str, method: str = "GET") -> Any:
        """Ask the NameNode about a path on HDFS, past all clients under test."""
        address = self.cluster.addresses["namenode_http"]
        user = self.cluster.processes["namenode"].username()
        text = _get(f"http://{address}/webhdfs/v1{path}?op={operation}&user.name={user}", method)
        return json.loads(text) if text else None

    def administrate(self, *words: str) -> str:
        """Run `hdfs dfsadmin` as the superuser."""
        namenode = self.cluster.processes["namenode"].cmdline()
        command = [namenode[0], "-cp", namenode[namenode.index("-cp") + 1]]
        answer = subprocess.run(
            [*command, "org.apache.hadoop.hdfs.tools.DFSAdmin", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def mend(self) -> None:
        """Start what was killed, and wait until every block has its copies."""
        self.cluster.mend()
        self.wait_for(lambda: not any(self._ails()), "HDFS to be whole again")

    def _ails(self) -> list[int]:
        state = self.cluster.namenode("FSNamesystem")
        names = ("MissingBlocks", "CorruptBlocks", "UnderReplicatedBlocks")
        return [len(self.lost()), *(int(state[name]) for name in names)]

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = 90) -> None:
        """Wait for a state of the cluster."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}; {self._ails()}"
            time.sleep(0.2)


@contextmanager
def frozen(process: psutil.Process) -> Iterator[psutil.Process]:
    """Stop a process, and let it go on afterwards if it is still there."""
    process.suspend()
    try:
        yield process
    finally:
        if daemons.is_alive(process):
            process.resume()


@contextmanager
def corrupted(*replicas: Replica) -> Iterator[None]:
    """Turn over a byte in every 4 KiB of some replicas, and back, as far as they are still there."""
    damaged = {replica.path: _turn_over(replica.path) for replica in replicas}
    try:
        yield
    finally:
        for path, content in damaged.items():
            if path.exists() and path.read_bytes() == content:  # and not a good copy in its place
                _turn_over(path)


def _is_of_tasks(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "pyspark.daemon" in process.cmdline()
    return False


def _connected(processes: Iterable[psutil.Process], port: int) -> set[int]:
    """Local ports by which processes are connected to a port of this machine."""
    found: set[int] = set()
    for process in processes:
        with suppress(psutil.Error):
            links = process.net_connections("tcp")
            found |= {link.laddr.port for link in links if link.raddr and link.raddr.port == port}
    return found


def _unread(port: int) -> set[int]:
    """Remote ports of connections to a local port in which bytes wait to be read; see proc_net_tcp(5)."""
    found = set()
    for line in PROC_NET_TCP.read_text(encoding="ascii").splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if int(local.partition(":")[2], 16) == port and int(queues.partition(":")[2], 16):
            found.add(int(remote.partition(":")[2], 16))
    return found


def _turn_over(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[::4096] = bytes(255 - value for value in content[::4096])
    with path.open("r+b") as stream:  # in place: the DataNode may hold the file open
        stream.write(content)
    return bytes(content)


def _get(url: str, method: str = "GET") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method), timeout=10) as answer:
        return str(answer.read().decode())
