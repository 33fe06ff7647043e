"""What ingestion and preprocessing cost an image, and the memory they take, from a thousand files to many.

    python benchmarks/scale.py [--images 1000 10000 100000] [--quick] [--plot docs/images/scale.png]

Each set of phantoms is drawn first; then `kedro run --pipelines=ingestion,preprocessing` runs on it in a
process of its own, with a storage of its own. The driver is that process, and the JVM that it starts; the
processes and Python workers that read, inspect and decode are counted apart. Prints a table and writes
benchmarks/results/scale.json.
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
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from brain_mri.imaging.phantom import write_phantom_folder
from brain_mri.report.style import CLASS_COLOURS, GRID, heading, new_figure

PROJECT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "scale.json"
_COMPLETED = re.compile(r"Completed node: (\w+)")


@dataclass(frozen=True)
class Scale:
    """What one set took.

    Attributes:
        images: Files of the source.
        seconds: By node, from the end of the one before it; the first from the start of the process.
        driver_bytes: Most resident memory of the `kedro` process.
        jvm_bytes: Likewise, of the JVM that it started.
        workers_bytes: Most memory of all other processes together; what they share counts once.
    """

    images: int
    seconds: dict[str, float]
    driver_bytes: int
    jvm_bytes: int
    workers_bytes: int

    @property
    def total(self) -> float:
        """Seconds of the whole run."""
        return sum(self.seconds.values())


class _Memory(threading.Thread):
    """Samples the memory of a process and of what it starts until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self.driver = self.jvm = self.workers = 0

    def run(self) -> None:
        try:
            while True:
                self.driver = max(self.driver, self._process.memory_info().rss)
                workers = 0
                for child in self._process.children(recursive=True):
                    try:
                        if child.name() == "java":
                            self.jvm = max(self.jvm, child.memory_info().rss)
                        else:
                            full = child.memory_full_info()
                            workers += getattr(full, "pss", full.uss)
                    except psutil.NoSuchProcess:
                        continue
                self.workers = max(self.workers, workers)
                time.sleep(0.2)
        except psutil.NoSuchProcess:
            pass


def measure(images: int, folder: Path, seed: int = 1) -> Scale:
    """Draw phantoms, run on them, remove what was written.

    Args:
        images: Files to draw.
        folder: Where there is room for them: about 50 kB each.
        seed: Of the phantoms.

    Raises:
        RuntimeError: The run failed.
    """
    source, storage = folder / f"phantom-{images}", folder / f"storage-{images}"
    write_phantom_folder(source, images=images, seed=seed)
    command = [sys.executable, "-m", "kedro", "run", "--pipelines=ingestion,preprocessing"]
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*command, f"--params=ingestion.source={source}"],
        cwd=PROJECT,
        env={**os.environ, "BRAIN_MRI_STORAGE": str(storage), "KEDRO_DISABLE_TELEMETRY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    memory = _Memory(process.pid)
    memory.start()
    assert process.stdout is not None
    seconds: dict[str, float] = {}
    said = []
    for line in process.stdout:
        said.append(line)
        completed = _COMPLETED.search(line)
        if completed:
            seconds[completed[1]] = time.perf_counter() - started - sum(seconds.values())
    if process.wait():
        raise RuntimeError(f"The run on {images} phantoms failed:\n{''.join(said)[-3000:]}")
    memory.join()
    shutil.rmtree(storage)
    return Scale(images, seconds, memory.driver, memory.jvm, memory.workers)


def draw(path: Path, scales: list[Scale]) -> None:
    """Draw milliseconds an image and memory against the number of images."""
    figure, axes = new_figure(9, 3.4, columns=2)
    cost, memory = axes[0]
    counts = [scale.images for scale in scales]
    milliseconds = [1000 * scale.total / scale.images for scale in scales]
    cost.plot(counts, milliseconds, marker="o", color=CLASS_COLOURS[0])
    for name, colour in zip(("driver", "jvm", "workers"), CLASS_COLOURS, strict=False):
        values = [getattr(scale, f"{name}_bytes") / 2**30 for scale in scales]
        memory.plot(counts, values, marker="o", color=colour, label={"jvm": "JVM"}.get(name, name))
    for panel, title in ((cost, "Milliseconds an image"), (memory, "Memory, GiB")):
        panel.set(xscale="log", xlabel="files")
        panel.set_ylim(bottom=0)
        panel.grid(color=GRID)
        heading(panel, title)
    memory.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--quick", action="store_true", help="500 and 2,000 images, under two minutes")
    parser.add_argument("--plot", type=Path, help="draw cost and memory into this file")
    options = parser.parse_args()
    scales = []
    with tempfile.TemporaryDirectory() as folder:
        for images in [500, 2_000] if options.quick else options.images:
            print(f"{images} phantoms …", flush=True)
            scales.append(measure(images, Path(folder)))
            shutil.rmtree(Path(folder) / f"phantom-{images}")
    nodes = list(dict.fromkeys(node for scale in scales for node in scale.seconds))
    print(f"\n{'':24}" + "".join(f"{scale.images:>12,}" for scale in scales))
    for node in nodes:
        cells = (f"{1000 * scale.seconds[node] / scale.images:12.2f}" for scale in scales)
        print(f"{node + ', ms/image':24}" + "".join(cells))
    print(f"{'all, ms/image':24}" + "".join(f"{1000 * s.total / s.images:12.2f}" for s in scales))
    for name in ("driver", "jvm", "workers"):
        cells = (f"{getattr(scale, f'{name}_bytes') / 2**20:12,.0f}" for scale in scales)
        print(f"{name + ', MiB':24}" + "".join(cells))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(scale) for scale in scales], indent=1) + "\n", encoding="utf-8")
    if options.plot:
        draw(options.plot, scales)


if __name__ == "__main__":
    main()
