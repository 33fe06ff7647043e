"""Two-stage training: this project against Keras' own `fit`, alone and by several workers.

    python benchmarks/training.py --source FOLDER --weights FILE [--images N] [--only WAY …] [--quick]
                                  [--section data/08_reporting/sections/training.json]

FOLDER holds real scans, `<class>/<file>`; FILE the weights of MobileNetV2 without its top. Every way is a
process of its own and its time is from the start of that process: `kedro run --pipelines=training` on model
inputs that were prepared before, or `benchmarks/plain/train.py` on the files of the same split. ResNet-50
starts from random weights: it is there for the time alone; MobileNetV2 is trained by the recipe `head_first`.
`precision` times steps in float32 and mixed_bfloat16. The plain way gets as many epochs of each stage as this
project took. Prints tables and writes benchmarks/results/training.json. `--section` writes what the report
shows of one process against several workers.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file, too

from benchmarks.measure import Watch
from brain_mri.models.network import build_network, set_trained_layers
from brain_mri.models.recipe import Precision, make_recipe
from brain_mri.models.steps import TrainingNetwork, make_train_step
from brain_mri.report.speed import draw_curves
from brain_mri.report.style import WIDTH, new_figure
from brain_mri.storage.files import open_filesystem, write_file

PROJECT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "training.json"
STAGES = ("frozen base", "fine-tuning")
MARKS = (0.90, 0.94, 0.96)
_EPOCH = re.compile(r"Stage '([\w -]+)' epoch (\d+).*validation accuracy ([\d.]+)")
WANTED = ("resnet50", "mobilenetv2", "workers", "precision")
WORKERS = {
    "one process": "training.distribution=none",
    "1 worker of one core": "training.distribution=synchronous,training.num_workers=1",
    "2 workers of one core": "training.distribution=synchronous,training.num_workers=2",
    "2 workers, asynchronous": "training.distribution=asynchronous,training.num_workers=2",
}
CACHED = "training.augmented_copies=0,training.precision=float32"


@dataclass(frozen=True)
class Timeline:
    """When a way had reached what.

    Attributes:
        way: Its name.
        backbone: That it trained.
        epochs: (stage, seconds since the start of the process, validation accuracy), one each.
        seconds: Of the whole process.
        peak_bytes: Most memory at a time, of the process and all that it started.
        worker_bytes: Most memory of a worker, or of the process itself where that trains.
        images: To train on.
    """

    way: str
    backbone: str
    epochs: list[tuple[str, float, float]]
    seconds: float
    peak_bytes: int
    worker_bytes: int
    images: int

    @property
    def accuracy(self) -> float:
        """Best validation accuracy."""
        return max(accuracy for _, _, accuracy in self.epochs)

    def count(self, stage: str) -> int:
        """Epochs of a stage."""
        return sum(name == stage for name, _, _ in self.epochs)

    def stage_seconds(self, stage: str) -> float:
        """From the end of the stage before, or the start of the process, to the end of this one."""
        place = STAGES.index(stage)
        ends = [max((s for name, s, _ in self.epochs if name == each), default=0.0) for each in STAGES]
        return ends[place] - (ends[place - 1] if place else 0.0)

    def epoch_seconds(self, stage: str) -> float:
        """Of an epoch of a stage but the first, which also starts everything."""
        times = [seconds for name, seconds, _ in self.epochs if name == stage]
        return (times[-1] - times[0]) / max(len(times) - 1, 1)

    def seconds_to(self, accuracy: float) -> float | None:
        """Seconds until a validation accuracy was reached; None where it never was."""
        return next((seconds for _, seconds, reached in self.epochs if reached >= accuracy), None)


def epoch_of(line: str) -> tuple[str, float] | None:
    """The stage and the validation accuracy that a line of a log says an epoch ended with."""
    found = _EPOCH.search(line)
    return (found[1], float(found[3])) if found else None


def run_way(way: str, backbone: str, command: list[str], environment: dict[str, str], work: Path) -> Timeline:
    """Run a command and note when it says that an epoch has ended."""
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own commands
        command,
        cwd=PROJECT,
        env={**os.environ, **environment, "COLUMNS": "400", "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    epochs, lines = [], []
    watch = Watch(process.pid)
    with watch.running():
        for line in process.stdout:
            lines.append(line)
            found = epoch_of(line)
            if found:
                epochs.append((found[0], time.perf_counter() - started, found[1]))
                print(f"  {way} {backbone}: {epochs[-1]}", flush=True)
            elif "cached" in line:
                print(f"  {line.strip()}", flush=True)
        status = process.wait()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}:\n{''.join(lines[-30:])}")
    return Timeline(
        way, backbone, epochs, time.perf_counter() - started, watch.peak_bytes,
        watch.worker_bytes or watch.root_bytes, sum(1 for _ in (work / "folders" / "train").glob("*/*")),
    )  # fmt: skip


def prepare(source: Path, images: int | None, work: Path) -> None:
    """Run ingestion and preprocessing on (some of) the scans, and lay out the files of the same split."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.parent.parent == source)
    chosen = files[:: max(len(files) // images, 1)][:images] if images else files
    for path in chosen:
        target = work / "source" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    subprocess.run(  # noqa: S603
        [*KEDRO, "--pipelines=ingestion,preprocessing", f"--params=ingestion.source={work / 'source'}"],
        cwd=PROJECT, env={**os.environ, "BRAIN_MRI_STORAGE": str(work / "storage")}, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    manifest = pd.read_parquet(work / "storage/02_intermediate/manifest.parquet")
    for row in manifest[manifest["status"] == "accepted"].itertuples():
        target = work / "folders" / row.split / row.label / Path(row.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((work / "source" / row.path).resolve())


KEDRO = [str(Path(sys.executable).with_name("kedro")), "run"]


def project(way: str, backbone: str, weights: str, parameters: str, work: Path) -> Timeline:
    """Train with this project: from its model inputs to a published version."""
    storage = work / "storage"
    for left in ("06_models", "05_model_input/features"):
        shutil.rmtree(storage / left, ignore_errors=True)
    given = f"training.backbone={backbone},training.weights={weights},{parameters}"
    command = [*KEDRO, "--pipelines=training", f"--params=ingestion.source={work / 'source'},{given}"]
    return run_way(way, backbone, command, {"BRAIN_MRI_STORAGE": str(storage)}, work)


def plain(like: Timeline, weights: str, work: Path) -> Timeline:
    """Train with Keras' `fit`, as many epochs."""
    epochs = [str(max(like.count(stage), 1)) for stage in STAGES]
    script = str(PROJECT / "benchmarks" / "plain" / "train.py")
    arguments = [str(work / "folders"), like.backbone, weights, *epochs]
    return run_way("plain", like.backbone, [sys.executable, script, *arguments], {}, work)


COLUMNS = (
    "epochs", "frozen, s", "images/s", "tuning, s", "images/s", "whole, s", "ratio", "GiB",
    "a worker", "best",
    *(f"to {mark:.0%}, s" for mark in MARKS),
)  # fmt: skip


def show(timelines: list[Timeline], against: Timeline) -> None:
    """Print a table of what was trained with one backbone.

    The images of a second are those to train on, over the time of an epoch with its validation.
    """
    print(f"\n{against.backbone}: ratios are against the way {against.way!r}\n")
    print(f"{'way':<28}" + "".join(f"{column:>11}" for column in COLUMNS))
    for each in timelines:
        cells = ["+".join(str(each.count(stage)) for stage in STAGES)]
        for stage in STAGES:
            rate = each.images / each.epoch_seconds(stage) if each.epoch_seconds(stage) else math.nan
            cells += [f"{each.stage_seconds(stage):.0f}", f"{rate:.1f}"]
        cells += [
            f"{each.seconds:.0f}", f"{against.seconds / each.seconds:.2f}", f"{each.peak_bytes / 2**30:.1f}",
            f"{each.worker_bytes / 2**30:.1f}", f"{each.accuracy:.3f}",
        ]  # fmt: skip
        for mark in MARKS:
            reached = each.seconds_to(mark)
            cells.append("never" if reached is None else f"{reached:.0f}")
        print(f"{each.way:<28}" + "".join(f"{cell:>11}" for cell in cells))


def step_rate(backbone: str, stage: int, precision: Precision, steps: int = 9) -> float:
    """Images a second of training steps on batches of 16 of 224×224, median of some; all cores."""
    import keras  # noqa: PLC0415 - the other ways are processes of their own

    classes = ("glioma", "meningioma", "notumor", "pituitary")
    recipe = make_recipe(
        "baseline", backbone=backbone, weights=None, image_size=224, classes=classes, seed=1,
        precision=precision,
    )  # fmt: skip
    model, random = build_network(recipe), np.random.default_rng(0)
    set_trained_layers(model, recipe, recipe.stages[stage])
    network = TrainingNetwork(model, recipe)
    step = make_train_step(network, model, keras.optimizers.Adam(1e-3), recipe, [1.0] * len(classes))
    pixels = random.integers(0, 256, (16, 224, 224, 1)).astype(np.uint8)
    draws, labels, seconds = random.random((16, network.draws), np.float32), np.arange(16) % 4, []
    for _ in range(steps + 1):
        started = time.perf_counter()
        float(step(pixels, labels, draws, np.float32(16))[0])  # a step has ended when its loss is known
        seconds.append(time.perf_counter() - started)
    return 16 / statistics.median(seconds[1:])


def compare_precisions() -> dict[str, list[float]]:
    """Print and return images a second of steps in float32 and in mixed_bfloat16, by backbone and stage."""
    found = {}
    for backbone in ("resnet50", "mobilenetv2"):
        for place, stage in enumerate(STAGES):
            rates = [step_rate(backbone, place, each) for each in ("float32", "mixed_bfloat16")]
            gain = rates[1] / rates[0]
            print(f"{backbone}, {stage}: {rates[0]:.1f} and {rates[1]:.1f} images/s, {gain:.2f} times")
            found[f"{backbone}, {stage}"] = rates
    return found


def compare_workers(timelines: list[Timeline]) -> None:
    """Print how much faster two workers are than one."""
    _, one, two, _ = timelines
    for stage in STAGES:
        if one.count(stage) > 1:
            gain = one.epoch_seconds(stage) / two.epoch_seconds(stage)
            print(f"two workers against one, an epoch of {stage}: {gain:.2f}")


def section(timelines: list[Timeline], images: int | None) -> dict[str, Any]:
    """One process against several workers, as the report shows it (`report.page.build_page`)."""
    figure, axes = new_figure(WIDTH, 3.2)
    curves = {each.way: [(seconds, accuracy) for _, seconds, accuracy in each.epochs] for each in timelines}
    draw_curves(axes[0, 0], curves)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    rows = [
        [each.way, *(f"{each.epoch_seconds(stage):.1f}" for stage in STAGES), f"{each.seconds:.0f}",
         f"{each.peak_bytes / 2**30:.1f}", f"{each.worker_bytes / 2**30:.1f}", f"{each.accuracy:.3f}"]
        for each in timelines
    ]  # fmt: skip
    return {
        "title": "Training by several workers",
        "backbone": "mobilenetv2",
        "paragraphs": [
            f"Measured on {date.today().isoformat()} with {images or 'all'} scans, MobileNetV2 in two "
            f"stages, on {os.cpu_count()} cores. One process uses all cores, a worker one. "
            "The whole counts from the start of the process, with Spark's start and the publication of "
            "the version."
        ],
        "tables": [
            {
                "caption": "Time, memory and best validation accuracy",
                "columns": [
                    "way",
                    *(f"{stage}, s an epoch" for stage in STAGES),
                    "whole, s",
                    "peak GiB",
                    "GiB a worker",
                    "accuracy",
                ],
                "rows": rows,
            }
        ],
        "figures": [
            {"caption": "What was reached when.", "png": base64.b64encode(picture.getvalue()).decode()}
        ],
    }


def main() -> None:
    """Measure the ways that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="of MobileNetV2")
    parser.add_argument("--images", type=int, help="of ResNet-50 and the workers; all for the accuracy")
    parser.add_argument("--only", nargs="+", choices=WANTED)
    parser.add_argument("--section", help="URL of the file for the report")
    parser.add_argument("--quick", action="store_true", help="MobileNetV2 alone, a few images and epochs")
    options = parser.parse_args()
    options.source, options.weights = options.source.resolve(), str(Path(options.weights).resolve())
    wanted = options.only or (("mobilenetv2",) if options.quick else WANTED)
    images = 120 if options.quick else options.images
    limit = ",training.epochs=1" if options.quick else ""
    results: dict[str, list[Timeline]] = {}
    with tempfile.TemporaryDirectory(prefix="brain-mri-benchmark-") as folder:
        few, all_scans = Path(folder, "few"), Path(folder, "all")
        if options.quick or {"resnet50", "workers"} & set(wanted):
            prepare(options.source, images, few)
        if "resnet50" in wanted:
            baseline = f"{CACHED},training.recipe=baseline{limit}"
            cached = project("cached", "resnet50", "null", baseline, few)
            results["resnet50"] = [plain(cached, "random", few), cached]
            if not options.quick:
                mixed = baseline.replace("float32", "mixed_bfloat16")
                results["resnet50"].append(project("cached, mixed_bfloat16", "resnet50", "null", mixed, few))
        if "mobilenetv2" in wanted:
            work = few if options.quick else all_scans
            if not options.quick:
                prepare(options.source, None, all_scans)
            head_first = f"{CACHED},training.recipe=head_first{limit}"
            ours = project("cached, head_first", "mobilenetv2", options.weights, head_first, work)
            results["mobilenetv2"] = [plain(ours, options.weights, work), ours]
        if "workers" in wanted:
            few_epochs = (
                f"training.recipe=baseline,training.epochs={1 if options.quick else 3},"
                "training.global_batch_size=32"
            )
            results["workers"] = [
                project(way, "mobilenetv2", options.weights, f"{few_epochs},{given}", few)
                for way, given in WORKERS.items()
            ]
    precision = {"precision": compare_precisions()} if "precision" in wanted else {}
    for timelines in results.values():
        show(timelines, timelines[0])
    if "workers" in results:
        compare_workers(results["workers"])
        if options.section:
            content = json.dumps(section(results["workers"], images), indent=1).encode()
            write_file(*open_filesystem(options.section), content)
    others = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    measured = {name: [asdict(each) for each in timelines] for name, timelines in results.items()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**others, **measured, **precision}, indent=1))
    print(f"\nWritten to {RESULTS.relative_to(PROJECT)}.")


if __name__ == "__main__":
    main()
