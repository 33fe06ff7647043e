"""Enhancing photographs: this project against OpenCV in plain processes, the limit.

    .venv/bin/python benchmarks/enhancement.py --source /path/to/fundus --images 2000
    .venv/bin/python benchmarks/enhancement.py --source /path/to/fundus --cluster  # behind `cluster up`

Photographs of the source are repeated as JPEGs, mirrored, turned and in other brightness, so that no two are
alike; without a source phantoms are drawn. Ways: (a) one plain process, (b) one a core, which is the limit,
(c) `kedro run --pipelines=enhancement` on this machine, and with `--cluster` from HDFS to HDFS with one
worker's core and with two. One process, and one worker, get a quarter of the photographs: their figures are
rates. Every way is a process of its own. Its time is from its start to its end; that
without the start is what the log says of the shards. Memory is that of all its processes and
executors. A quarter of the photographs shows whether that grows. Prints a table and writes
benchmarks/results/enhancement.json, and beside it the figures that the pipeline drew of its run over
all photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import joblib
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file, too

from benchmarks.measure import PROJECT, Watch, cluster_daemons
from brain_mri.cluster.connection import use_cluster
from brain_mri.imaging.decode import RefusedImage
from brain_mri.imaging.fundus_phantom import draw_fundus
from brain_mri.imaging.photograph import decode_photograph

RESULTS = Path(__file__).parent / "results" / "enhancement.json"
KEDRO = str(Path(sys.executable).with_name("kedro"))
PLAIN = str(PROJECT / "benchmarks" / "plain" / "enhance.py")
QUICK, USUAL = 40, 2000
_SAID = re.compile(r"Enhanced: ([\d,]+) of .*; ([\d.]+) s,")


@dataclass(frozen=True)
class Way:
    """What a way took.

    Attributes:
        name: Of the way.
        images: That it enhanced.
        seconds: From the start of its process to its end.
        work_seconds: Without the start, where it says so.
        peak_bytes: Most memory of all its processes at a time; what they share counts once.
    """

    name: str
    images: int
    seconds: float
    work_seconds: float
    peak_bytes: int


def write_photographs(source: Path | None, images: int, folder: Path) -> None:
    """Fill a folder with different JPEGs."""
    originals = []
    for path in sorted(source.rglob("*")) if source else ():
        if path.suffix.lower() in {".jpg", ".tif", ".jpeg"}:
            try:
                originals.append(decode_photograph(path.read_bytes()))
            except RefusedImage:
                continue
    if not originals:
        originals = [draw_fundus(seed, size=600).photograph for seed in range(8)]
    folder.mkdir(parents=True)
    for number in range(images):
        turn, original = divmod(number, len(originals))
        changed = np.rot90(originals[original], turn % 4)
        if turn // 4 % 2:
            changed = changed[:, ::-1]
        changed = np.clip(changed * (1 - 0.02 * (turn // 8)), 0, 255).astype(np.uint8)
        options = [cv2.IMWRITE_JPEG_QUALITY, 92]
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), np.ascontiguousarray(changed[..., ::-1]), options)


def run(name: str, command: list[str], images: int, **environment: str) -> Way:
    """Run a way in a process of its own."""
    print(f"  {name} …", flush=True)
    variables = {**os.environ, "COLUMNS": "400", "PYSPARK_PYTHON": sys.executable, **environment}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command, cwd=PROJECT, env=variables, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        watch = Watch(process.pid, cluster_daemons() if "--env=cluster" in command else ())
        with watch.running():
            status = process.wait()
        seconds = time.perf_counter() - started
        output.seek(0)
        text = output.read()
    said = _SAID.search(text)
    if status or (KEDRO in command and (not said or int(said[1].replace(",", "")) != images)):
        raise SystemExit(f"{name} ended with {status}:\n{text[-3000:]}")
    return Way(name, images, seconds, float(said[2]) if said else seconds, watch.peak_bytes)


def pipeline(name: str, source: str, images: int, method: str, *words: str, **more: str) -> Way:
    """Run the pipeline."""
    given = f"enhancement.source={source},enhancement.vessels.method={method}"
    command = [KEDRO, "run", "--pipelines=enhancement", f"--params={given}", *words]
    return run(name, command, images, **more)


def main() -> None:
    """Measure the ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path)
    parser.add_argument("--images", type=int, default=USUAL)
    parser.add_argument("--method", choices=("network", "threshold"), default="network")
    parser.add_argument("--cluster", action="store_true", help="on the cluster that runs, too")
    parser.add_argument("--quick", action="store_true", help="a few phantoms or photographs")
    options = parser.parse_args()
    images = QUICK if options.quick else options.images
    cores = int(joblib.cpu_count())
    ways = []
    with tempfile.TemporaryDirectory(prefix="brain-mri-benchmark-") as temporary:
        work = Path(temporary)
        few, many = work / "few", work / "many"
        write_photographs(options.source, images, many)
        few.mkdir()
        for path in sorted(many.iterdir())[: images // 4]:
            (few / path.name).symlink_to(path)
        method = options.method
        for processes in sorted({1, cores}):
            folder, count = (many, images) if processes == cores else (few, images // 4)
            output = str(work / f"plain-{processes}")
            command = [sys.executable, PLAIN, str(folder), output, method, str(processes)]
            ways.append(run(f"plain, {processes} process{'es' if processes > 1 else ''}", command, count))
        for name, folder, count in (("a quarter", few, images // 4), ("all", many, images)):
            storage = str(work / f"storage-{name.replace(' ', '-')}")
            ways.append(
                pipeline(
                    f"pipeline, here, {name}",
                    str(folder),
                    count,
                    method,
                    BRAIN_MRI_STORAGE=storage,
                )
            )
        RESULTS.parent.mkdir(exist_ok=True)
        for figure in (work / "storage-all" / "08_reporting").glob("enhancement_*.png"):
            shutil.copy(figure, RESULTS.parent)
        if options.cluster:
            use_cluster(PROJECT)
            home = "hdfs:///benchmark-enhancement"
            subprocess.run([KEDRO, "cluster", "fs", "-rm", "-r", "-f", home], cwd=PROJECT, check=True)  # noqa: S603
            put = (
                ["cluster", "fs", "-mkdir", "-p", home],
                ["cluster", "fs", "-put", "-t", "8", str(few), f"{home}/few"],
                ["cluster", "fs", "-put", "-t", "8", str(many), f"{home}/many"],
            )
            for words in put:
                subprocess.run([KEDRO, *words], cwd=PROJECT, check=True)  # noqa: S603
            for workers, folder, count in ((1, f"{home}/few", images // 4), (2, f"{home}/many", images)):
                conf = work / f"conf-{workers}"
                shutil.copytree(PROJECT / "conf", conf)
                with (conf / "cluster" / "spark.yml").open("a") as settings:
                    settings.write(f"spark.cores.max: {workers}\nspark.executor.cores: 1\n")
                name = f"pipeline, HDFS, {workers} worker{'s' if workers > 1 else ''}"
                words = ("--env=cluster", f"--conf-source={conf}")
                storage = f"{home}/{workers}"
                given = (name, folder, count, method, *words)
                ways.append(pipeline(*given, BRAIN_MRI_HDFS_STORAGE=storage))
    limit = next(way for way in ways if way.name.startswith(f"plain, {cores} "))
    columns = f"{'way':<30}{'images':>8}{'s':>9}{'images/s':>10}{'of the limit':>14}"
    print(f"\n{columns}{'without start':>15}{'GiB':>7}")
    for way in ways:
        rate, work_rate = way.images / way.seconds, way.images / way.work_seconds
        bound = limit.images / limit.seconds
        print(
            f"{way.name:<30}{way.images:>8}{way.seconds:>9.1f}{rate:>10.2f}{rate / bound:>14.2f}"
            f"{work_rate / bound:>15.2f}{way.peak_bytes / 2**30:>7.2f}"
        )
    RESULTS.write_text(json.dumps([asdict(way) for way in ways], indent=1))
    print(f"\nWritten to {RESULTS.relative_to(PROJECT)}.")


if __name__ == "__main__":
    main()
