"""How tests break what computes, and how they see from Spark's own state where the fault fell."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from brain_mri.cluster import daemons
from tests.cluster_runs import Command, wait_until
from tests.clusters import Cluster

_PAGES = range(
    4040, 4040 + 17
)  # where Spark's drivers serve their page: spark.ui.port, spark.port.maxRetries


@dataclass(frozen=True)
class Hit:
    """An executor that was killed at its work.

    Attributes:
        executor: Its id, as Spark counts them.
        stage: The stage whose task it ran.
        at: When, in seconds since 1970.
        container: YARN's id of it; empty on a Spark cluster.
    """

    executor: str
    stage: int
    at: float
    container: str


def executors(cluster: Cluster) -> dict[str, psutil.Process]:
    """The executors that run on a cluster, by Spark's id."""
    found = {}
    for _, process in daemons.processes_of(cluster.folder):
        with suppress(psutil.Error):
            words = process.cmdline()
            if process.name() == "java" and "--executor-id" in words:
                found[words[words.index("--executor-id") + 1]] = process
    return found


def worker_of(cluster: Cluster, executor: psutil.Process) -> str:
    """The name of the worker that started an executor, for example "worker-1"."""
    words = executor.cmdline()
    address = words[words.index("--worker-url") + 1].rpartition("@")[2]
    names = {address: name for name, address in cluster.addresses.items()}
    return names[address].replace("_", "-")


class DriverPage:
    """What the driver of a run says of it, through the web page that it serves."""

    def __init__(self, run: Command) -> None:
        self._run = run
        self._address = ""

    def ask(self, path: str) -> Any:
        """Ask Spark's REST service below the application; None while it is not there."""
        with suppress(OSError, psutil.Error):
            self._address = self._address or self._find()
            return get(f"{self._address}/{path}")
        return None

    def _find(self) -> str:
        for process in psutil.Process(self._run.pid).children(recursive=True):
            for connection in process.net_connections("tcp"):
                # The driver listens for its tasks and for Python too; those do not speak HTTP.
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port in _PAGES:
                    base = f"http://127.0.0.1:{connection.laddr.port}/api/v1/applications"
                    with suppress(OSError, ValueError):
                        return f"{base}/{get(base)[0]['id']}"
        raise OSError("the driver has no page yet")

    def stage_of(self, executor: str, module: str) -> int | None:
        """The stage that a line of a module started and of which an executor runs a task now; or None."""
        for stage in self.ask("stages?status=active") or []:
            if module in f"{stage['name']} {stage.get('details')}":
                found = self.ask(f"stages/{stage['stageId']}/{stage['attemptId']}") or {}
                tasks = (found.get("tasks") or {}).values()
                if any(task["executorId"] == executor and task["status"] == "RUNNING" for task in tasks):
                    return int(stage["stageId"])
        return None


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Let a process and all that it started stand still."""
    stopped = [process, *process.children(recursive=True)]
    for one in stopped:
        one.suspend()
    try:
        yield
    finally:
        for one in stopped:
            if daemons.is_alive(one):
                one.resume()


@contextmanager
def caught(
    cluster: Cluster, run: Command, module: str, timeout: float = 240
) -> Iterator[tuple[Hit, psutil.Process]]:
    """Freeze an executor while it runs a task of a stage that a module started, until the context ends.

    While it is frozen, its task cannot end: what the driver says then is still so when something is killed.

    Args:
        cluster: Where it runs.
        run: The driver; it must not end before.
        module: Part of the file name and line that Spark names a stage by.
        timeout: In seconds.
    """
    page, deadline = DriverPage(run), time.monotonic() + timeout
    while time.monotonic() < deadline:
        assert run.poll() is None, f"ended before an executor was seen at work:\n{run.output}"
        for name, process in executors(cluster).items():
            with suppress(psutil.NoSuchProcess):
                if page.stage_of(name, module) is None:
                    continue
                with frozen(process):
                    time.sleep(0.5)  # for what it had reported to reach the page
                    stage = page.stage_of(name, module)
                    if stage is not None:
                        container = process.environ().get("CONTAINER_ID", "")
                        yield Hit(name, stage, time.time(), container), process
                        return
        time.sleep(0.05)
    raise AssertionError(f"no executor was seen running a task of {module}:\n{run.output}")


def kill_an_executor(cluster: Cluster, run: Command, module: str, *, with_worker: bool) -> Hit:
    """Kill an executor while it runs a task of a stage that a module started.

    Args:
        cluster: Where it runs.
        run: The driver; it must not end before.
        module: Part of the file name and line that Spark names a stage by.
        with_worker: Whether the worker that started it dies with it, which would start another one.
    """
    with caught(cluster, run, module) as (hit, process):
        victims = [process, *process.children(recursive=True)]
        if with_worker:
            victims.insert(0, cluster.processes[worker_of(cluster, process)])
        daemons.end(victims, signals=("kill",))
    return hit


def wait_for_another(cluster: Cluster, run: Command, hit: Hit) -> None:
    """Let executors that are left do nothing until the driver has one in place of the one that was killed."""
    page, left = DriverPage(run), executors(cluster)
    left.pop(hit.executor, None)
    known = {"driver", hit.executor, *left}
    with ExitStack() as stack:
        for process in left.values():
            stack.enter_context(frozen(process))
        wait_until(
            lambda: {entry["id"] for entry in page.ask("executors") or []} - known, run, "another executor"
        )


def assert_replaced(hit: Hit, events: list[dict[str, Any]]) -> None:
    """See in the event log that the stage lost a task with the executor, and did it again elsewhere."""
    removed = [event for event in events if event["Event"] == "SparkListenerExecutorRemoved"]
    assert hit.executor in {event["Executor ID"] for event in removed}
    ends = [event for event in events if event["Event"] == "SparkListenerTaskEnd"]
    ends = [event for event in ends if event["Stage ID"] == hit.stage]
    lost = {
        end["Task Info"]["Index"]
        for end in ends
        if end["Task End Reason"]["Reason"] == "ExecutorLostFailure"
        and end["Task Info"]["Executor ID"] == hit.executor
        and end["Task Info"]["Launch Time"] < 1000 * hit.at
    }
    assert lost, "no task was lost with the executor"
    again = {
        end["Task Info"]["Index"]
        for end in ends
        if end["Task End Reason"]["Reason"] == "Success"
        and end["Task Info"]["Executor ID"] != hit.executor
        and end["Task Info"]["Finish Time"] > 1000 * hit.at
    }
    assert lost <= again


def final_status(cluster: Cluster, timeout: float = 60) -> str:
    """What YARN's ResourceManager says of the only application of a cluster, once that has ended."""
    address = cluster.addresses["resourcemanager_http"]
    deadline = time.monotonic() + timeout
    while True:
        (application,) = get(f"http://{address}/ws/v1/cluster/apps")["apps"]["app"]
        if application["finalStatus"] != "UNDEFINED":
            return str(application["finalStatus"])
        assert time.monotonic() < deadline, application
        time.sleep(0.2)


def get(url: str) -> Any:
    """What a page answers, as JSON."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return json.loads(answer.read())
