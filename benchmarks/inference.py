"""Scoring a folder: `kedro predict` against a Keras network that is asked file by file in one process.

    python benchmarks/inference.py [--source FOLDER] [--storage ROOT] [--repeat N] [--quick]

ROOT is the storage root of a run with a trained version, FOLDER what is scored. Without them phantoms are
drawn and a small network is trained for an epoch. The source is scored N times over (its files are linked
under other names), so that starting does not decide. Every way is a process of its own and its time is from
the start of that process. Prints a table and writes benchmarks/results/inference.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file, too

import pandas as pd

from benchmarks.training import KEDRO, PROJECT
from brain_mri.datasets.versions import VersionedFolderDataset

RESULTS = Path(__file__).parent / "results" / "inference.json"
QUICK, USUAL = 400, 2000  # phantoms


def prepared(work: Path, images: int) -> tuple[Path, Path]:
    """A folder of phantoms, and a storage root with a network that was trained on them for an epoch."""
    storage = work / "storage"
    given = f"--params=ingestion.phantom.images={images},ingestion.source=null,training.epochs=1"
    environment = {name: value for name, value in os.environ.items() if name != "BRAIN_MRI_DATA"}
    subprocess.run(  # noqa: S603 - our own command
        [*KEDRO, given], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**environment, "BRAIN_MRI_STORAGE": str(storage)},
    )  # fmt: skip
    source = json.loads((storage / "02_intermediate" / "source_description.json").read_text())["url"]
    return Path(source), storage


def repeated(source: Path, times: int, folder: Path) -> int:
    """Link every file of a folder so many times; the number of links."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix != ".json")
    for turn in range(times):
        for number, path in enumerate(files):
            target = folder / f"{turn}" / path.parent.name / f"{number:06d}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return times * len(files)


def timed(command: list[str], storage: Path) -> float:
    """Seconds that a command takes."""
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own commands
        command, cwd=PROJECT, capture_output=True, text=True, check=False,
        env={**os.environ, "BRAIN_MRI_STORAGE": str(storage), "TF_CPP_MIN_LOG_LEVEL": "2"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def main() -> None:
    """Measure both ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path)
    parser.add_argument("--storage", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few hundred phantoms")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="brain-mri-benchmark-") as folder:
        work = Path(folder)
        if options.source and options.storage:
            source, storage = options.source.resolve(), options.storage.resolve()
        else:
            source, storage = prepared(work, QUICK if options.quick else USUAL)
        images = repeated(source, options.repeat, work / "scans")
        version = VersionedFolderDataset(filepath=str(storage / "06_models" / "classifier")).load()
        size = str(json.loads(version.read("preparation.json"))["image_size"])
        plain = str(PROJECT / "benchmarks" / "plain" / "predict.py")
        network, table = f"{version.url}/classifier.keras", str(work / "plain.csv")
        scores = str(work / "scores.parquet")
        predict = [*KEDRO[:-1], "predict", str(work / "scans"), "--csv", "--output", scores]
        ways = {
            "plain: Keras, one process": timed(
                [sys.executable, plain, str(work / "scans"), network, size, table], storage
            ),
            "kedro predict": timed(predict, storage),
        }
        scored = len(pd.read_parquet(scores))
    base = next(iter(ways.values()))
    print(f"{'way':<28}{'s':>8}{'files/s':>10}{'times':>8}")
    for way, seconds in ways.items():
        print(f"{way:<28}{seconds:>8.1f}{images / seconds:>10.0f}{base / seconds:>8.2f}")
    assert scored == images, f"{scored} of {images} files have a row"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"images": images, "seconds": ways}, indent=1))
    print(f"\nWritten to {RESULTS.relative_to(PROJECT)}.")


if __name__ == "__main__":
    main()
