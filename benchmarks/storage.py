"""How fast scans go to storage and back, as single files and packed, on this disk and on HDFS.

    python benchmarks/storage.py [--source FOLDER] [--quick] [--plot docs/images/storage.png]

Every way writes the same scans (each content once, only what can be decoded), and what it wrote is read back
and compared by sha256 before its time counts. A way is marked as verified if it reads back by itself what it
wrote, as this project's upload does. The plain way is to write one file after the other. Then Spark turns the
packed scans into model inputs, on this machine and on the cluster, with the same number of cores.

It needs a cluster: your own by HADOOP_CONF_DIR and SPARK_MASTER, or the one that `kedro cluster up` starts.
What it writes there, below the storage root of the environment `cluster`, is removed at the end. Prints
tables and writes benchmarks/results/storage.json. Without --source it draws phantoms. With --quick the ways
of single files take a sample of the scans.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from joblib.externals.loky import get_reusable_executor
from kedro.config import OmegaConfigLoader

from brain_mri import settings
from brain_mri.cluster.connection import use_cluster
from brain_mri.cluster.shell import run_shell
from brain_mri.datasets.prepared import Preparation, PreparedPartsDataset
from brain_mri.datasets.scans import PackedScansDataset, Packing, plan_blocks
from brain_mri.datasets.shards import model_input_schema
from brain_mri.imaging.inspect import inspect_scan
from brain_mri.imaging.phantom import write_phantom_folder
from brain_mri.imaging.prepare import PrepareOptions
from brain_mri.report.style import CLASS_COLOURS, heading, horizontal_bars, new_figure
from brain_mri.spark import session
from brain_mri.spark.launchers import ProcessLauncher, SparkLauncher
from brain_mri.storage.files import open_filesystem, read_file, remove, write_file
from brain_mri.storage.hadoop import default_filesystem

PROJECT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "storage.json"
SIZE = 224
SAMPLE = 200
THREADS = 16
PLAIN = "single files, one at a time"
PACKED = "packed"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        action: "write" or "read".
        place: "local" or "HDFS".
        way: How it was done.
        verified: Whether the way itself read back and compared what it wrote.
        files: Number of scans.
        seconds: For all of them.
    """

    action: str
    place: str
    way: str
    verified: bool
    files: int
    seconds: float

    @property
    def rate(self) -> float:
        """Scans a second."""
        return self.files / self.seconds


@dataclass(frozen=True)
class Preprocessing:
    """How fast Spark turned the packed scans into model inputs.

    Attributes:
        cores: That the session had.
        start_seconds: Until the session had run a first task.
        first_seconds: The pass that starts the Python workers too.
        later_seconds: Median of the passes after it.
    """

    cores: int
    start_seconds: float
    first_seconds: float
    later_seconds: float


def choose_scans(source: Path) -> pd.DataFrame:
    """The scans that every way writes: each content once, and only what can be decoded.

    Returns:
        Columns `path`, `url`, `bytes` (as `plan_blocks` takes them) and `sha256`.
    """
    rows = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if inspect_scan(content).status == "accepted":
            digest = hashlib.sha256(content).hexdigest()
            rows.append((path.relative_to(source).as_posix(), str(path), len(content), digest))
    files = pd.DataFrame(rows, columns=["path", "url", "bytes", "sha256"])
    return files.drop_duplicates("sha256", ignore_index=True)


def write_files(files: pd.DataFrame, url: str, threads: int, verified: bool) -> None:
    """Write a file a scan; `verified` as the project writes every file: beside, read back, renamed."""
    filesystem, root = open_filesystem(url)
    for folder in {path.rpartition("/")[0] for path in files["path"]}:
        filesystem.makedirs(f"{root}/{folder}", exist_ok=True)

    def write(path: str, source: str) -> None:
        content = Path(source).read_bytes()
        if verified:
            write_file(filesystem, f"{root}/{path}", content)
            return
        with filesystem.open(f"{root}/{path}", "wb") as stream:
            stream.write(content)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, files["path"], files["url"]))


def read_files(files: pd.DataFrame, url: str, threads: int) -> set[str]:
    """Read a file a scan; the sha256 of each."""
    filesystem, root = open_filesystem(url)

    def read(path: str) -> str:
        return hashlib.sha256(read_file(filesystem, f"{root}/{path}")).hexdigest()

    with ThreadPoolExecutor(threads) as pool:
        return set(pool.map(read, files["path"]))


def put(folder: Path, url: str, *options: str) -> None:
    """Upload a folder as Hadoop's own shell does, from a start of its JVM to its end."""
    if run_shell(["-put", *options, str(folder), url]):
        raise RuntimeError(f"Hadoop's shell could not put {folder} at {url}.")


def save_packed(files: pd.DataFrame, url: str) -> None:
    """Upload as the project does: inspect, pack, verify; its processes start anew, as in a run."""
    get_reusable_executor().shutdown(wait=True)
    PackedScansDataset(filepath=url).save(Packing(plan_blocks(files), ProcessLauncher()))


def read_packed(url: str) -> set[str]:
    """Read all packed scans; the sha256 of each."""
    scans = PackedScansDataset(filepath=url).load()
    contents = scans.contents(scans.inspections()["scan_id"].tolist())
    return {hashlib.sha256(content).hexdigest() for content in contents.values()}


def seconds_of(action: Callable[[], object]) -> float:
    """How long a call takes on the clock."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure_place(place: str, root: str, files: pd.DataFrame, sample: pd.DataFrame) -> list[Row]:
    """Write in every way, compare what was written, then read in every way.

    Args:
        place: "local" or "HDFS".
        root: URL of the folder to write to.
        files: What is packed.
        sample: What the ways of single files take of them.

    Raises:
        RuntimeError: What was read back is not what was to be written.
    """
    rows = []

    def measure(
        way: str, url: str, chosen: pd.DataFrame, write: Callable[[], object], verified: bool
    ) -> None:
        print(f"  {place}: {way} …", flush=True)
        rows.append(Row("write", place, way, verified, len(chosen), seconds_of(write)))
        found = read_packed(url) if way.startswith(PACKED) else read_files(chosen, url, THREADS)
        if found != set(chosen["sha256"]):
            raise RuntimeError(f"{way}: {url} does not hold what was to be written there.")

    write_files(sample[:100], f"{root}/warm", THREADS, True)  # daemons that have just been started are slow
    for threads, verified in ((1, False), (1, True), (THREADS, False), (THREADS, True)):
        way = PLAIN if threads == 1 else f"single files, {threads} threads"
        way += ", read back" if verified else ""
        url = f"{root}/{threads}-threads{'-verified' if verified else ''}"
        measure(way, url, sample, partial(write_files, sample, url, threads, verified), verified)
    if place == "HDFS":
        with tempfile.TemporaryDirectory() as folder:
            write_files(sample, folder, 1, False)  # -put takes whole folders
            for options in ((), ("-t", "8")):
                url = f"{root}/put{''.join(options)}"
                upload = partial(put, Path(folder), url, *options)
                measure(" ".join(["hadoop fs -put", *options]), url, sample, upload, False)
    url = f"{root}/{PACKED}"
    for way in (PACKED, f"{PACKED}, again: all there"):
        measure(way, url, files, partial(save_packed, files, url), True)

    for way, threads in ((PLAIN, 1), (f"single files, {THREADS} threads", THREADS)):
        took = seconds_of(partial(read_files, sample, f"{root}/1-threads", threads))
        rows.append(Row("read", place, way, False, len(sample), took))
    rows.append(Row("read", place, PACKED, False, len(files), seconds_of(partial(read_packed, url))))
    return rows


def configuration(environment: str) -> OmegaConfigLoader:
    """The project's configuration of an environment, as `kedro run` reads it."""
    arguments: dict[str, Any] = settings.CONFIG_LOADER_ARGS
    return OmegaConfigLoader(str(PROJECT / "conf"), env=environment, **arguments)


def preprocess(environment: str, root: str, cores: int, passes: int) -> Preprocessing:
    """Turn packed scans into model inputs beside them; runs in a process of its own.

    Args:
        environment: "local" or "cluster", whose Spark settings are used.
        root: URL of the folder that holds the packed scans.
        cores: For all tasks together.
        passes: How often; the first starts Python workers.
    """
    configured = {
        **configuration(environment)["spark"],
        "spark.eventLog.enabled": False,
        "spark.cores.max": cores,
        "spark.ui.showConsoleProgress": False,
    }
    if environment == "local":
        configured["spark.master"] = f"local[{cores}]"
    session.configure(configured, default_filesystem() if environment == "cluster" else None)
    started = seconds_of(lambda: session.get_session().range(cores).count())

    scans = PackedScansDataset(filepath=f"{root}/{PACKED}").load()
    ids = [scan_id for record in scans.stats() for scan_id in scans.scan_ids(record)]
    rows = pd.DataFrame({"scan_id": ids, "split": "all", "label": 0})
    schema = model_input_schema(SIZE, ("scan",))
    plan = Preparation(scans, rows, ("all",), PrepareOptions(image_size=SIZE), schema, SparkLauncher())
    took = []
    for number in range(passes):  # each to a place of its own: what is there is not prepared again
        folder = f"{root}/inputs-{environment}-{number}"
        target = PreparedPartsDataset(filepath=f"{folder}/records", parts=f"{folder}/{{split}}")
        took.append(seconds_of(partial(target.save, plan)))
    spark = session.get_session()
    found = Preprocessing(
        spark.sparkContext.defaultParallelism, started, took[0], statistics.median(took[1:])
    )
    spark.stop()
    return found


def print_rows(rows: list[Row], action: str) -> None:
    """Print the measurements of writing or reading as a table."""
    places = ("local", "HDFS")
    columns = (f"{place + ': files':>14}{'s':>8}{'files/s':>9}{'ratio':>8}" for place in places)
    print(f"\n{action:43}{'verified':8}" + "".join(columns))
    for way in dict.fromkeys(row.way for row in rows if row.action == action):
        found = {row.place: row for row in rows if (row.action, row.way) == (action, way)}
        verified = any(row.verified for row in found.values())
        line = f"{way:43}{'yes' if verified else 'no' if action == 'write' else '':8}"
        for row in map(found.get, places):
            cells = f"{row.files:14d}{row.seconds:8.1f}{row.rate:9.0f}{ratio(row, rows):8.2f}" if row else ""
            line += f"{cells:39}"
        print(line)


def ratio(row: Row, rows: Iterable[Row]) -> float:
    """How many times the scans a second of the plain way at the same place."""
    plain = next(one for one in rows if (one.action, one.place, one.way) == (row.action, row.place, PLAIN))
    return row.rate / plain.rate


def print_preprocessing(preprocessing: dict[str, Preprocessing], images: int) -> None:
    """Print how fast Spark was."""
    head = ("cores", "session s", "first pass s", "images/s", "later s", "images/s", "ratio")
    print("\n" + f"{'preprocess':20}" + "".join(f"{name:>13}" for name in head))
    local = preprocessing["local"].later_seconds
    for environment, entry in preprocessing.items():
        print(
            f"{environment:20}{entry.cores:13d}{entry.start_seconds:13.1f}{entry.first_seconds:13.1f}"
            f"{images / entry.first_seconds:13.0f}{entry.later_seconds:13.1f}"
            f"{images / entry.later_seconds:13.0f}{local / entry.later_seconds:13.2f}"
        )


def draw(path: Path, rows: list[Row], preprocessing: dict[str, Preprocessing], images: int) -> None:
    """Draw scans a second of every way."""
    figure, axes = new_figure(11, 9, rows=3, columns=2)
    for line, action in enumerate(("write", "read")):
        for column, place in enumerate(("local", "HDFS")):
            chosen = [row for row in rows if (row.action, row.place) == (action, place)]
            rates = [round(row.rate) for row in chosen]
            horizontal_bars(axes[line, column], [row.way for row in chosen], rates, CLASS_COLOURS[line])
            heading(axes[line, column], f"{action.capitalize()}, {place}: scans/s")
    for column, (title, name) in enumerate(
        (("first pass", "first_seconds"), ("later passes", "later_seconds"))
    ):
        rates = [round(images / getattr(entry, name)) for entry in preprocessing.values()]
        horizontal_bars(axes[2, column], preprocessing, rates, CLASS_COLOURS[2])
        heading(axes[2, column], f"Preprocess, {title}: images/s")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder of scans; default: phantoms")
    parser.add_argument("--quick", action="store_true", help="at most two minutes")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="for preprocessing; default: all")
    parser.add_argument("--plot", type=Path, help="draw the rates into this file")
    options = parser.parse_args()
    use_cluster(PROJECT)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # executors find the project's packages there
    if not (default_filesystem() or "").startswith("hdfs://"):
        parser.error(
            "no HDFS is configured. Start a cluster here with `kedro cluster up`, or name yours with "
            "HADOOP_CONF_DIR and SPARK_MASTER."
        )
    hdfs = f"{configuration('cluster')['globals']['storage']}/benchmark-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or Path(folder) / "phantom"
        if options.source is None:
            write_phantom_folder(source, images=1000 if options.quick else 5712, seed=1)
        files = choose_scans(source)
        sample = files.iloc[:: -(-len(files) // SAMPLE)] if options.quick else files
        print(
            f"{len(files)} scans ({files['bytes'].sum() / 1e6:.1f} MB) of {options.source or 'phantoms'}; "
            f"the ways of single files take {len(sample)}."
        )
        local = f"{folder}/storage"
        try:
            rows = measure_place("local", local, files, sample) + measure_place("HDFS", hdfs, files, sample)
            passes = 3 if options.quick else 5
            preprocessing = {
                environment: in_own_process(preprocess, environment, root, options.cores, passes)
                for environment, root in (("local", local), ("cluster", hdfs))
            }
        finally:
            remove(*open_filesystem(hdfs))
    print_rows(rows, "write")
    print_rows(rows, "read")
    print_preprocessing(preprocessing, len(files))
    results = {
        "images": len(files),
        "bytes": int(files["bytes"].sum()),
        "rows": [{**asdict(row), "ratio": ratio(row, rows)} for row in rows],
        "preprocessing": {name: asdict(entry) for name, entry in preprocessing.items()},
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        draw(options.plot, rows, preprocessing, len(files))


def in_own_process(function: Callable[..., Preprocessing], *arguments: object) -> Preprocessing:
    """Call a function in a fresh interpreter: one process can hold one Spark session."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    main()
