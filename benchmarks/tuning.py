"""A round of five head configurations against plain Keras trainings of the first stage, one after another.

    python benchmarks/tuning.py --source FOLDER --weights FILE [--images N] [--quick]

FOLDER holds real scans, `<class>/<file>`; FILE the weights of MobileNetV2 without its top. Every way is a
process of its own and its time is from the start of that process: `kedro run --pipelines=tuning` on model
inputs that were prepared before, first with nothing cached, then with what the first has cached; and
`benchmarks/plain/train.py` five times, on the files of the same split. All train the same epochs. Prints
tables, the times of the trials among them, and writes benchmarks/results/tuning.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it runs as a file, too

from benchmarks.training import KEDRO, PROJECT, Timeline, prepare, run_way

RESULTS = Path(__file__).parent / "results" / "tuning.json"
TRIALS, EPOCHS = 5, 5
ROUND = (
    f"tuning.rounds=1,tuning.trials_per_round={TRIALS},tuning.pruner=none,tuning.finalists=1,tuning.seeds=1"
)


def search(way: str, weights: str, epochs: int, seed: int, work: Path) -> tuple[Timeline, pd.DataFrame]:
    """Run a round of trials; the table of the trials, too."""
    storage = work / "storage"
    training = f"training.backbone=mobilenetv2,training.weights={weights},tuning.epochs={epochs}"
    given = f"ingestion.source={work / 'source'},{training},{ROUND},tuning.seed={seed}"
    command = [*KEDRO, "--pipelines=tuning", f"--params={given}"]
    timeline = run_way(way, "mobilenetv2", command, {"BRAIN_MRI_STORAGE": str(storage)}, work)
    return timeline, pd.read_parquet(storage / "07_model_output" / "tuning_trials.parquet")


def plain(number: int, weights: str, epochs: int, work: Path) -> Timeline:
    """Train the head on a frozen base with Keras' `fit`."""
    script = str(PROJECT / "benchmarks" / "plain" / "train.py")
    command = [sys.executable, script, str(work / "folders"), "mobilenetv2", weights, str(epochs), "0"]
    return run_way(f"plain training {number}", "mobilenetv2", command, {}, work)


def overlap(trials: pd.DataFrame) -> float:
    """How many trials ran at the same time, in the mean, while any did.

    Example:
        >>> overlap(pd.DataFrame({"started": [0.0, 0.0, 10.0], "seconds": [10.0, 10.0, 5.0]}))
        1.666...
    """
    ends = trials["started"] + trials["seconds"]
    return float(trials["seconds"].sum() / (ends.max() - trials["started"].min()))


def show(trials: pd.DataFrame) -> None:
    """Print when each trial ran, and what it reached."""
    begun = trials["started"].min()
    print(f"\n{'trial':<8}{'from, s':>9}{'to, s':>9}{'accuracy':>10}{'macro F1':>10}  configuration")
    for row in trials.itertuples():
        start, end = row.started - begun, row.started - begun + row.seconds
        print(
            f"{row.number:<8}{start:>9.1f}{end:>9.1f}{row.accuracy:>10.3f}{row.macro_f1:>10.3f}  "
            f"{row.configuration}"
        )
    print(f"{overlap(trials):.2f} trials ran at the same time, in the mean.")


def main() -> None:
    """Measure both ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="of MobileNetV2")
    parser.add_argument("--images", type=int, help="all, where it is left out")
    parser.add_argument("--quick", action="store_true", help="a few images, one epoch, one plain training")
    options = parser.parse_args()
    weights, epochs = str(Path(options.weights).resolve()), 1 if options.quick else EPOCHS
    with tempfile.TemporaryDirectory(prefix="brain-mri-benchmark-") as folder:
        work = Path(folder)
        prepare(options.source.resolve(), 120 if options.quick else options.images, work)
        cold, trials = search("a round, nothing cached", weights, epochs, 42, work)
        warm, others = search("a round, features cached", weights, epochs, 43, work)
        plains = [
            plain(number + 1, weights, epochs, work) for number in range(1 if options.quick else TRIALS)
        ]
    show(trials)
    show(others)
    one, five = plains[0].seconds, sum(each.seconds for each in plains)
    print(f"\n{'way':<34}{'s':>8}{'of one plain training':>24}{'GiB':>8}{'best accuracy':>16}")
    rows: list[tuple[str, float, float, Any]] = [
        ("one plain training", one, plains[0].peak_bytes, plains[0].accuracy),
        (
            f"{len(plains)} plain trainings", five, max(each.peak_bytes for each in plains),
            max(each.accuracy for each in plains),
        ),
        (cold.way, cold.seconds, cold.peak_bytes, trials["accuracy"].max()),
        (warm.way, warm.seconds, warm.peak_bytes, others["accuracy"].max()),
    ]  # fmt: skip
    for way, seconds, peak, accuracy in rows:
        print(f"{way:<34}{seconds:>8.1f}{seconds / one:>24.2f}{peak / 2**30:>8.1f}{accuracy:>16.3f}")
    RESULTS.parent.mkdir(exist_ok=True)
    tables = [json.loads(table.to_json(orient="records")) for table in (trials, others)]
    RESULTS.write_text(json.dumps({"images": cold.images, "ways": rows, "trials": tables}, indent=1))
    print(f"\nWritten to {RESULTS.relative_to(PROJECT)}.")


if __name__ == "__main__":
    main()
