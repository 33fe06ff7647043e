"""How fast files become model inputs: this project against other ways, on the same files and cores.

    python benchmarks/preprocessing.py [--source FOLDER] [--quick] [--plot docs/images/preprocessing.png]

Compared are the plain way (Spark over single files on HDFS, see `benchmarks/plain`), this project from HDFS
to HDFS and from local disk to local disk, `tf.data` and Ray Data over the folder, and the limit: the same
decode and resize in plain processes, one a core, with nothing around it. Only the plain way and this project
write what they prepare. Then sequential against Spark on more and more cores, and how long training waits for
model inputs.

Every way runs in a process of its own and is measured from outside, with all that it starts. Its first pass
is cold: it counts from the start of the process, but the files may be in the system's cache. Later passes are
warm; their median counts.

It needs a cluster: your own by HADOOP_CONF_DIR and SPARK_MASTER, or the one that `kedro cluster up` starts.
Without one only what runs on this machine is measured. What it writes is removed at the end. Prints tables
and writes benchmarks/results/preprocessing.json. Without --source it draws phantoms. With --quick there are
fewer images and passes, the plain way takes a sample, and only all cores are measured.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file, too

from benchmarks.image_set import write_images
from benchmarks.measure import PROJECT, Job, Measured, cluster_daemons, measure
from benchmarks.storage import THREADS, choose_scans, configuration, save_packed, write_files
from benchmarks.ways import STEPS
from brain_mri.cluster.connection import use_cluster
from brain_mri.imaging.phantom import write_phantom_folder
from brain_mri.report.speed import draw_runtime
from brain_mri.report.style import CLASS_COLOURS, heading, horizontal_bars, new_figure
from brain_mri.storage.files import open_filesystem, remove, write_file
from brain_mri.storage.hadoop import default_filesystem

RESULTS = Path(__file__).parent / "results" / "preprocessing.json"
IMAGES, QUICK_IMAGES, QUICK_SAMPLE = 20_000, 1_500, 300
PHANTOMS = 4_000  # drawn; the rest repeats them
PASSES, QUICK_PASSES = 4, 2
PROJECTED = (5_000, 50_000, 500_000, 5_000_000)

PLAIN = "plain way, HDFS to HDFS"
HDFS = "this project, HDFS to HDFS"
LOCAL = "this project, local to local"
LIMIT = "limit: plain processes"
SEQUENTIAL = "sequential: one plain process"
COMPARED = (PLAIN, HDFS, LOCAL, "tf.data", "Ray Data", LIMIT)

Runs = dict[str, Measured]
Table = dict[str, Any]


def measure_all(job: Job, hdfs: str | None, sample: int, workers: Sequence[int]) -> Runs:
    """Run every way.

    Args:
        job: On this machine, with all cores.
        hdfs: URL of the folder on HDFS that holds the same packed scans, and `sample` single files.
        sample: Images of the plain way.
        workers: Numbers of cores, less than all, with which the project runs too.
    """
    runs = {}
    if hdfs:
        cluster, daemons = replace(job, root=hdfs, environment="cluster"), cluster_daemons()
        runs[HDFS] = measure("project", cluster, daemons)
        for cores in workers:
            runs[f"{HDFS}, {cores}"] = measure("project", replace(cluster, cores=cores), daemons)
        # Minutes each on single files: one cold pass and one warm. The gigabytes that it writes are deleted
        # in the background, so no other way on HDFS comes after it.
        runs[PLAIN] = measure("plain", replace(cluster, images=sample, passes=2), daemons)
    for cores in workers:
        runs[f"{LOCAL}, {cores}"] = measure("project", replace(job, cores=cores))
    runs[LOCAL] = measure("project", job)  # what it writes last feeds the training step
    runs["tf.data"] = measure("tf.data", job)
    runs["Ray Data"] = measure("Ray Data", job)
    runs[LIMIT] = measure("processes", job)
    runs[SEQUENTIAL] = measure("processes", replace(job, cores=1))
    for way in ("feed 16", "feed 32 shuffled"):
        runs[way] = measure(way, replace(job, images=0, passes=2))
    return runs


def comparison(runs: Runs) -> Table:
    """Every way against the plain way and the limit."""
    columns = ["way", "images", "cold, s", "images/s, cold", "images/s, warm", "× plain way", "of the limit"]
    rows = [
        [
            name,
            f"{run.images:,}",
            f"{run.cold_seconds:.1f}",
            f"{run.cold_rate:,.0f}",
            f"{run.rate:,.0f}",
            ratio(run, runs.get(PLAIN)),
            ratio(run, runs[LIMIT]),
            f"{1000 * run.cpu_seconds / run.images:.2f}",
            f"{run.peak_bytes / 1e6:,.0f}",
        ]
        for name, run in ((name, runs[name]) for name in COMPARED if name in runs)
    ]
    columns += ["CPU ms an image", "peak memory, MB"]
    return {"caption": "Every way with the same files and cores.", "columns": columns, "rows": rows}


def ratio(run: Measured, other: Measured | None) -> str:
    """How many times the images a second of another run, both warm; "–" where that was not measured."""
    return f"{run.rate / other.rate:.2f}" if other else "–"


def scaling(runs: Runs) -> Table:
    """Sequential against Spark on this machine, then against Spark on the cluster."""
    cores = runs[LOCAL].cores
    chosen = {SEQUENTIAL: runs[SEQUENTIAL]}
    chosen |= {f"local[{run.cores}]": run for run in by_cores(runs, LOCAL)}
    chosen[f"local[*], here local[{cores}]"] = runs[LOCAL]
    chosen |= {f"cluster, {run.cores} workers": run for run in by_cores(runs, HDFS)}
    rows = [
        [
            name,
            f"{run.cold_seconds:.1f}",
            f"{run.warm_seconds:.1f}",
            f"{run.rate:,.0f}",
            ratio(run, runs[SEQUENTIAL]),
        ]
        for name, run in chosen.items()
    ]
    columns = ["run", "start and first pass, s", "a later pass, s", "images/s", "speed-up"]
    caption = f"This project with more and more cores, {runs[LOCAL].images:,} images. A worker has a core."
    return {"caption": caption, "columns": columns, "rows": rows}


def by_cores(runs: Runs, name: str) -> list[Measured]:
    """The runs of a way, from few to many cores."""
    found = [run for key, run in runs.items() if key == name or key.startswith(f"{name}, ")]
    return sorted(found, key=lambda run: run.cores)


def projection(runs: Runs) -> Table:
    """How long more images would take."""
    rows = [
        [name, f"{run.start_seconds:.0f}", *(in_words(projected(run, images)) for images in PROJECTED)]
        for name, run in runs.items()
        if name in (PLAIN, SEQUENTIAL, LOCAL, HDFS)
    ]
    caption = (
        "Projection: the start-up (the first pass less a later one), then the rate of later passes. It "
        "assumes the same cores, files of the same mean size, and that time grows with their number alone."
    )
    return {
        "caption": caption,
        "columns": ["way", "start-up, s", *(f"{images:,}" for images in PROJECTED)],
        "rows": rows,
    }


def projected(run: Measured, images: int) -> float:
    """Seconds that a way would take for some images."""
    return run.start_seconds + images / run.rate


def in_words(seconds: float) -> str:
    """A time in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def idleness(runs: Runs) -> Table:
    """How long training waits for model inputs."""
    rows = [
        [name.removeprefix("feed "), f"{run.rate:,.0f}", f"{100 * run.counts['idle']:.1f} %"]
        for name, run in runs.items()
        if name.startswith("feed")
    ]
    caption = (
        f"At most {STEPS} training steps of the compact network here, and how much of the time they wait."
    )
    return {"caption": caption, "columns": ["batches of", "images/s", "waiting"], "rows": rows}


def tables(runs: Runs) -> list[Table]:
    """All tables, for the terminal and for the report."""
    return [comparison(runs), scaling(runs), projection(runs), idleness(runs)]


def print_table(table: Table) -> None:
    """Print a table with aligned columns."""
    lines = [table["columns"], *table["rows"]]
    widths = [max(len(line[column]) for line in lines) + 2 for column in range(len(lines[0]))]
    print(f"\n{table['caption']}")
    for first, *others in lines:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print(first.ljust(widths[0]) + "".join(cells))


def workers_runs(runs: Runs) -> list[dict[str, Any]]:
    """What `report.speed.runtime_vs_workers` draws."""
    return [
        {"place": place, "workers": run.cores, **{key: getattr(run, key) for key in keys}}
        for place, name in (("local", LOCAL), ("cluster", HDFS))
        for keys in [("images", "cold_seconds", "warm_seconds")]
        for run in by_cores(runs, name)
    ]


def draw(runs: Runs, synthetic: bool) -> Figure:
    """Draw images a second of every way, and the runtime against workers."""
    figure, axes = new_figure(11, 6.4, rows=2, columns=2, synthetic=synthetic)
    chosen = {name: runs[name] for name in COMPARED if name in runs}
    for panel, title, measured in ((axes[0, 0], "warm", "rate"), (axes[0, 1], "cold", "cold_rate")):
        rates = [round(getattr(run, measured)) for run in chosen.values()]
        horizontal_bars(panel, chosen, rates, CLASS_COLOURS[1])
        heading(panel, f"Images a second, {title}")
    draw_runtime(axes[1, 0], workers_runs(runs))
    memory = [round(run.peak_bytes / 1e6) for run in chosen.values()]
    horizontal_bars(axes[1, 1], chosen, memory, CLASS_COLOURS[2])
    heading(axes[1, 1], "Peak memory, MB")
    return figure


def section(results: Mapping[str, Any], runs: Runs, figure: Figure) -> dict[str, Any]:
    """What the report shows: as `report.page.build_page` takes it, and what the reporting nodes draw."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    kind = "phantoms, drawn by a program" if results["synthetic"] else "real scans"
    return {
        "title": "How fast preprocessing is",
        "paragraphs": [
            f"Measured on {results['date']} with {results['images']:,} files of {kind} "
            f"({results['bytes'] / 1e6:,.0f} MB), on {results['machine']}. Every way ran in a process of its "
            "own. The first pass is cold: it counts from the start of that process. The others are warm; "
            "their median counts. Only the plain way and this project write what they prepare; tf.data, Ray "
            "Data and the limit only prepare it.",
        ],
        "tables": tables(runs),
        "figures": [
            {
                "caption": "Images a second, runtime and memory of every way.",
                "png": base64.b64encode(picture.getvalue()).decode(),
            }
        ],
        "synthetic": results["synthetic"],
        "runtime_vs_workers": workers_runs(runs),
    }


def describe_machine(cores: int) -> str:
    """Cores, memory and versions, in words."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{cores} cores of {platform.machine()}, {memory:.0f} GiB, Python {platform.python_version()}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder of scans; default: phantoms")
    parser.add_argument("--quick", action="store_true", help="at most two minutes")
    parser.add_argument("--images", type=int, help=f"default: {IMAGES:,}, with --quick {QUICK_IMAGES:,}")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--plot", type=Path, help="draw into this file")
    parser.add_argument(
        "--section", help="URL of the file for the report: <storage>/08_reporting/sections/benchmarks.json"
    )
    options = parser.parse_args()
    use_cluster(PROJECT)
    images = options.images or (QUICK_IMAGES if options.quick else IMAGES)
    hdfs = None
    if (default_filesystem() or "").startswith("hdfs://"):
        hdfs = f"{configuration('cluster')['globals']['storage']}/benchmark-{uuid.uuid4().hex[:12]}"
    else:
        print("No HDFS is configured (`kedro cluster up` starts one): only what needs none is measured.")
    with tempfile.TemporaryDirectory() as folder:
        source = options.source or Path(folder) / "phantom"
        if options.source is None:
            write_phantom_folder(source, images=min(images, PHANTOMS), seed=1)
        files = write_images(choose_scans(source), Path(folder) / "files", images)
        size = int(files["bytes"].sum())
        print(f"{len(files):,} files ({size / 1e6:,.0f} MB) of {options.source or 'phantoms'}.", flush=True)
        job = Job(
            str(Path(folder) / "files"),
            f"{folder}/storage",
            len(files),
            options.cores,
            QUICK_PASSES if options.quick else PASSES,
        )
        sample = files.iloc[:: -(-len(files) // QUICK_SAMPLE)] if options.quick else files
        try:
            save_packed(files, f"{job.root}/scans")
            if hdfs:
                save_packed(files, f"{hdfs}/scans")
                write_files(sample, f"{hdfs}/files", THREADS, verified=False)
            workers = [] if options.quick else [2**power for power in range(20) if 2**power < options.cores]
            runs = measure_all(job, hdfs, len(sample), workers)
        finally:
            if hdfs:
                remove(*open_filesystem(hdfs))
    for table in tables(runs):
        print_table(table)
    results = {
        "date": date.today().isoformat(),
        "machine": describe_machine(options.cores),
        "synthetic": options.source is None,
        "images": len(files),
        "bytes": size,
        "runs": {
            name: {**asdict(run), "images_per_second": run.rate, "cold_images_per_second": run.cold_rate}
            for name, run in runs.items()
        },
    }
    save_results("phantoms" if options.source is None else "scans", results)
    figure = draw(runs, synthetic=options.source is None)
    if options.plot:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.plot, dpi=110)
    if options.section:
        content = json.dumps(section(results, runs, figure), indent=1)
        write_file(*open_filesystem(options.section), content.encode())


def save_results(kind: str, results: Mapping[str, Any]) -> None:
    """Write the results beside those of the other kind of scans."""
    others = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({**others, kind: results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
