"""The project as its users meet it: whole runs, parts of runs, resumed runs, refused runs."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from brain_mri.hooks import StaleOutputsError
from brain_mri.imaging.phantom import write_phantom_folder
from brain_mri.parameters import ParameterError
from brain_mri.pipelines.training.nodes import NotTunedError
from brain_mri.storage.lock import LockedError, RunLock
from tests.stored_models import trained_weights

pytestmark = [pytest.mark.spark, pytest.mark.tensorflow]

REPOSITORY = Path(__file__).resolve().parents[1]
Run = Callable[..., dict[str, Any]]

OUTPUTS = """
02_intermediate: manifest.parquet scans.parquet quarantine.parquet split_metadata.json
05_model_input: model_inputs_train.parquet model_inputs_validation.parquet model_inputs_test.parquet
06_models: classifier training_history.json model_metadata.json
07_model_output: predictions.parquet
08_reporting: metrics.json report.html class_distribution.png sample_grid.png image_properties.png
  training_history.png confusion_matrix.png per_class_metrics.png roc_curves.png calibration.png
  coverage.png gradcam.png failures.png explanations.json repetitions.json
  sample_predictions.png throughput_stages.png runtime_vs_workers.png
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of phantoms, with copies and damaged files among them."""
    folder = tmp_path_factory.mktemp("source") / "phantom"
    write_phantom_folder(folder, images=160, seed=5, processes=1)
    return folder


@pytest.fixture(scope="module")
def run(source: Path, spark: Any) -> Iterator[Run]:
    """Run the project in this process on a storage root: `run(storage, "ingestion", training__seed=1)`."""
    patch = pytest.MonkeyPatch()
    bootstrap_project(REPOSITORY)

    def start(
        storage: Path, *pipelines: str, options: dict[str, Any] | None = None, **changes: Any
    ) -> dict[str, Any]:
        patch.setenv("BRAIN_MRI_STORAGE", str(storage))
        parameters: dict[str, Any] = {
            "ingestion": {"source": str(source)},
            "preprocessing": {"image_size": 64},
            "training": {"epochs": 2},
        }
        for name, value in changes.items():
            section, _, key = name.partition("__")
            parameters.setdefault(section, {})[key] = value
        with KedroSession.create(REPOSITORY, runtime_params=parameters) as session:
            return dict(session.run(pipeline_names=list(pipelines) or None, **(options or {})))

    yield start
    patch.undo()


@pytest.fixture(scope="module")
def finished(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage root of one whole run."""
    storage = tmp_path_factory.mktemp("finished")
    run(storage)
    return storage


def _times(storage: Path) -> dict[str, int]:
    return {str(path.relative_to(storage)): path.stat().st_mtime_ns for path in storage.glob("0*/*")}


def test_a_whole_run_leaves_everything_that_it_promises(finished: Path) -> None:
    folder = ""
    for word in OUTPUTS.split():
        if word.endswith(":"):
            folder = word[:-1]
        else:
            assert (finished / folder / word).exists(), f"{folder}/{word}"
    assert not list(finished.rglob("*.tmp"))
    assert not (finished / ".run.lock").exists()

    manifest = pd.read_parquet(finished / "02_intermediate" / "manifest.parquet")
    assert len(manifest) == 160
    used = manifest[manifest["status"] == "accepted"]
    predictions = pd.read_parquet(finished / "07_model_output" / "predictions.parquet")
    assert sorted(predictions["scan_id"]) == sorted(used.loc[used["split"] == "test", "scan_id"])
    metrics = json.loads((finished / "08_reporting" / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx((predictions["predicted"] == predictions["label"]).mean())
    assert metrics["preprocessing_images_per_second"] > 0
    page = (finished / "08_reporting" / "report.html").read_text()
    assert "ynthetic" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    table = pq.read_schema(
        next((finished / "05_model_input" / "model_inputs_test.parquet").glob("part-*.parquet"))
    )
    assert table.metadata[b"height"] == table.metadata[b"width"] == b"64"


def test_one_seed_gives_one_manifest_split_and_model_inputs(finished: Path, run: Run, tmp_path: Path) -> None:
    run(tmp_path, "ingestion", "preprocessing")
    for name in ("02_intermediate/manifest.parquet", "02_intermediate/split_metadata.json"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name
    for split in ("train", "validation", "test"):
        name = f"05_model_input/model_inputs_{split}.parquet"
        rows = [pq.read_table(root / name).sort_by("scan_id") for root in (tmp_path, finished)]
        assert rows[0].equals(rows[1]), name


def test_a_resumed_run_makes_only_what_is_missing(finished: Path, run: Run) -> None:
    (finished / "08_reporting" / "metrics.json").unlink()
    before = _times(finished)
    run(finished, options={"only_missing_outputs": True})
    after = _times(finished)
    made = {name for name, when in after.items() if before.get(name) != when}
    assert "08_reporting/metrics.json" in made
    assert not [name for name in made if not name.startswith("08_reporting")]


def test_a_resumed_run_never_builds_on_what_other_parameters_made(finished: Path, run: Run) -> None:
    (finished / "08_reporting" / "metrics.json").unlink()
    resume = {"only_missing_outputs": True}
    with pytest.raises(StaleOutputsError, match=r"classifier, .*run\.allow_stale=true") as stale:
        run(finished, options=resume, training__seed=7)
    assert "model_inputs_train" not in str(stale.value), "training's seed made none of the model inputs"
    assert not (finished / "08_reporting" / "metrics.json").exists()
    run(finished, options=resume, training__seed=7, run__allow_stale=True)
    assert (finished / "08_reporting" / "metrics.json").exists()


def test_a_half_written_output_does_not_count_as_there(finished: Path, run: Run) -> None:
    mark = finished / "05_model_input" / "model_inputs_test.parquet" / "_SUCCESS"
    content = mark.read_bytes()
    mark.unlink()
    run(finished, "preprocessing", options={"only_missing_outputs": True})
    assert json.loads(mark.read_bytes())["classes"] == json.loads(content)["classes"]


def test_parts_of_the_pipeline_run_alone(finished: Path, run: Run) -> None:
    before = _times(finished)
    run(finished, options={"tags": ["figures"]})
    made = {name for name, when in _times(finished).items() if before.get(name) != when}
    assert "08_reporting/confusion_matrix.png" in made
    assert "05_model_input/model_inputs_train.parquet" not in made
    before = _times(finished)
    run(finished, options={"from_nodes": ["evaluate"]})
    made = {name for name, when in _times(finished).items() if before.get(name) != when}
    assert {"08_reporting/metrics.json", "08_reporting/report.html"} <= made
    assert "07_model_output/predictions.parquet" not in made


def test_unknown_parameters_are_refused_with_the_nearest_match(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"training\.bakbone: did you mean training\.backbone\?"):
        run(tmp_path, training__bakbone="compact")
    with pytest.raises(ParameterError, match=r"trainin: did you mean training\?"):
        run(tmp_path, trainin__seed=1)
    with pytest.raises(
        ParameterError, match=r"training\.backbone: .* expected one of .*Did you mean 'compact'"
    ):
        run(tmp_path, "training", training__backbone="compct")
    assert list(tmp_path.iterdir()) == []


def test_two_runs_on_one_root_do_not_mix(finished: Path, run: Run) -> None:
    lock = RunLock(str(finished))
    lock.acquire()
    try:
        with pytest.raises(LockedError, match=str(os.getpid())):
            run(finished, "reporting")
    finally:
        lock.release()
    run(finished, "reporting")


def _command(*words: str, storage: Path, **environment: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "BRAIN_MRI_STORAGE": str(storage), "TF_CPP_MIN_LOG_LEVEL": "2", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "kedro", *words],
        cwd=REPOSITORY,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_report_can_be_copied(finished: Path, tmp_path: Path) -> None:
    process = _command("report", "--no-open", "--output", str(tmp_path / "copy.html"), storage=finished)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert (tmp_path / "copy.html").read_bytes() == (finished / "08_reporting" / "report.html").read_bytes()
    process = _command("report", "--no-open", storage=tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Make one with `kedro run`" in output


def _predict(storage: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kedro", "predict", *words],
        cwd=REPOSITORY,
        env={**os.environ, "BRAIN_MRI_STORAGE": str(storage), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_is_scored_as_the_test_split_was(finished: Path, source: Path, tmp_path: Path) -> None:
    output, pictures = tmp_path / "scores.parquet", tmp_path / "pictures"
    words = (str(source), "--csv", "--output", str(output), "--explain", str(pictures))
    done = _predict(finished, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("path,scan_id,")  # nothing else is printed there
    rows = pd.read_csv(io.StringIO(done.stdout), keep_default_na=False)
    assert pd.read_parquet(output)["path"].tolist() == rows["path"].tolist()
    manifest = pd.read_parquet(finished / "02_intermediate" / "manifest.parquet")
    reasons = {
        f"{source}/{path}": reason for path, reason in zip(manifest["path"], manifest["reason"], strict=True)
    }
    refused = set(manifest.loc[manifest["status"] == "quarantined", "path"])
    assert set(rows.loc[rows["status"] == "refused", "path"]) == {f"{source}/{path}" for path in refused}
    for row in rows[rows["status"] == "refused"].itertuples():
        assert row.reason == reasons[row.path]
    scored = rows[rows["status"] == "scored"].drop_duplicates("scan_id").set_index("scan_id")
    predictions = pd.read_parquet(finished / "07_model_output" / "predictions.parquet").set_index("scan_id")
    same = scored.loc[predictions.index]
    assert (same["predicted_class"] == predictions["predicted_name"]).all()
    np.testing.assert_allclose(same["confidence"].astype(float), predictions["confidence"], atol=1e-5)
    assert len(list(pictures.rglob("*.png"))) == (rows["status"] == "scored").sum()
    metrics = json.loads((finished / "07_model_output" / "score_metrics.json").read_text())
    assert metrics["files"] == (rows["status"] == "scored").sum()
    right = (rows["predicted_class"] == rows["label"])[rows["status"] == "scored"]
    assert metrics["accuracy"] == pytest.approx(right.mean())


def test_a_single_file_is_scored_without_a_jvm(finished: Path, source: Path, tmp_path: Path) -> None:
    scan = sorted((source / "glioma").glob("*.jpg"))[0]
    output = str(tmp_path / "scores.parquet")
    done = _predict(finished, str(scan), "--json", "--output", output, PATH="/nonexistent", JAVA_HOME="")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("[\n{")
    (row,) = json.loads(done.stdout)
    assert row["path"] == str(scan)
    assert row["status"] == "scored"
    assert sum(row[f"probability_{name}"] for name in ("glioma", "meningioma", "notumor", "pituitary")) == (
        pytest.approx(1)
    )
    nothing = tmp_path / "note.txt"
    nothing.write_text("no picture")
    done = _predict(finished, str(nothing), "--output", output)
    assert done.returncode == 1
    assert "refused: " in done.stdout
    assert "No file could be scored" in done.stderr
    done = _predict(finished, str(tmp_path / "nowhere"), "--output", output)
    assert done.returncode == 1
    assert "There is no file or folder at" in done.stderr
    assert "Traceback" not in done.stderr


def _previews(storage: Path, folder: Path) -> dict[str, str]:
    """What Kedro-Viz shows of files below a storage root, by their names; no Java can be found."""
    program = (
        "import sys; from pathlib import Path; from kedro.framework.startup import bootstrap_project\n"
        f"root = Path({str(REPOSITORY)!r}); bootstrap_project(root)\n"
        "from kedro_viz.server import load_and_populate_data\n"
        "load_and_populate_data(root, include_hooks=True)\n"
        "from kedro_viz.api.rest.responses.save_responses import save_api_responses_to_fs\n"
        "import fsspec\n"
        f"save_api_responses_to_fs({str(folder)!r}, fsspec.filesystem('file'), True)\n"
        "from pyspark import SparkContext\n"
        "assert SparkContext._active_spark_context is None and 'tensorflow' not in sys.modules\n"
    )
    environment = {**os.environ, "BRAIN_MRI_STORAGE": str(storage), "PATH": "/nonexistent"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    previews = {}
    for path in (folder / "api" / "nodes").iterdir():
        node = json.loads(path.read_text())
        if node.get("preview"):
            previews[Path(str(node.get("filepath"))).name] = str(node.get("preview_type"))
    return previews


def test_kedro_viz_shows_pictures_without_a_jvm(finished: Path, tmp_path: Path) -> None:
    """What the static site is made of: layers, and previews made by our datasets."""
    previews = _previews(finished, tmp_path)
    main = json.loads((tmp_path / "api" / "main").read_text())
    assert main["layers"] == ["raw", "intermediate", "model_input", "models", "model_output", "reporting"]
    for name in ("class_distribution.png", "confusion_matrix.png", "sample_grid.png"):
        assert previews.get(name) == "ImagePreview", (name, previews)
    assert previews.get("manifest.parquet") == "TablePreview"
    assert previews.get("metrics.json") == "JSONPreview"


def test_what_a_search_finds_without_test_scans_is_trained_with_and_shown(
    finished: Path, run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    tested = root / "05_model_input" / "model_inputs_test.parquet"
    tested.rename(tmp_path / "away")
    small = {"space": {"batch_size": [8, 16]}, "sampler": "grid", "epochs": 1, "rounds": 1, "finalists": 1}
    changes = {
        f"tuning__{name}": value for name, value in {**small, "trials_per_round": 2, "seeds": 2}.items()
    }
    with pytest.raises(NotTunedError):
        run(root, "training", training__config="tuned")
    run(root, "tuning", **changes)
    best = json.loads((root / "07_model_output" / "best_config.json").read_text())
    trials = pd.read_parquet(root / "07_model_output" / "tuning_trials.parquet")
    assert list(trials["status"]) == ["complete"] * 3
    assert len(best["values"]) == 2

    (tmp_path / "away").rename(tested)
    run(root, "training", "reporting", training__config="tuned")
    version = max((root / "06_models" / "classifier").glob("20*"))
    metadata = json.loads((version / "model_metadata.json").read_text())
    assert metadata["tuning"]["study"] == best["study"]
    recipe = json.loads((version / "recipe.json").read_text())
    assert recipe["stages"][0]["batch_size"] == best["configuration"]["batch_size"]
    page = (root / "08_reporting" / "report.html").read_text()
    assert "The classifier of this report was trained with it." in page
    previews = _previews(root, tmp_path / "viz")
    for name in ("tuning_history.png", "tuning_coordinates.png", "tuning_importance.png"):
        assert previews.get(name) == "ImagePreview", (name, previews)
    assert previews.get("tuning_trials.parquet") == "TablePreview"
    assert previews.get("best_config.json") == "JSONPreview"


def test_photographs_are_enhanced_by_tasks_into_shards_and_the_next_run_makes_nothing(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    small = {"enhancement__phantoms": 30, "enhancement__shard_mib": 4}  # more than this process does itself
    small["enhancement__vessels"] = {"method": "threshold"}  # type: ignore[assignment]
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        run(root, "enhancement", **small)
    assert "Enhanced: 30 of 30 photographs in 3 shards" in caplog.text
    stats = json.loads((root / "08_reporting" / "enhancement_stats.json").read_text())
    assert (stats["enhanced"], stats["refused"]) == (30, {})
    folder = root / "07_model_output" / "enhanced"
    times = {path: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    assert len(times) == 9
    run(root, "enhancement", **small)
    assert "3 of 3 shards were complete already" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.glob("shard-*")} == times
    previews = _previews(root, tmp_path / "viz")
    assert previews.get("enhancement_throughput.png") == "ImagePreview"
    assert previews.get("enhancement_runtime.png") == "ImagePreview"


def _kill_at(sign: str, *words: str, storage: Path) -> None:
    """Start a command and SIGKILL all of it as soon as a file that the pattern names is there."""
    process = _command(*words, storage=storage)
    try:
        deadline = time.monotonic() + 240
        while not list(storage.glob(sign)) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(("02_intermediate/scans.parquet", "scans.parquet/.part-*.tmp"), marks=pytest.mark.slow),
        ("05_model_input/model_inputs_train.parquet", "model_inputs_train.parquet/.part-*.tmp"),
        pytest.param(
            ("05_model_input/model_inputs_test.parquet", "model_inputs_test.parquet/.part-*.tmp"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["scans", "model_inputs_train", "model_inputs_test"],
)
def test_a_killed_run_continues_to_the_same_result(
    finished: Path, source: Path, tmp_path: Path, run: Run, moment: tuple[str, str]
) -> None:
    """SIGKILL while the named output is being written; the resumed run ends like the undisturbed one."""
    output, sign = moment
    words = ("run", "--pipelines=ingestion,preprocessing")
    parameters = f"--params=ingestion.source={source},preprocessing.image_size=64,training.epochs=2"
    _kill_at(f"0*/{sign}", *words, parameters, storage=tmp_path)
    assert list(tmp_path.glob(f"0*/{sign}")), "the kill must fall inside the write"
    assert not (tmp_path / output / "_SUCCESS").exists()
    assert (tmp_path / ".run.lock").exists()
    run(tmp_path, "ingestion", "preprocessing", options={"only_missing_outputs": True})
    for split in ("train", "validation", "test"):
        name = f"05_model_input/model_inputs_{split}.parquet"
        assert (
            pq.read_table(tmp_path / name)
            .sort_by("scan_id")
            .equals(pq.read_table(finished / name).sort_by("scan_id"))
        )


def test_a_killed_training_goes_on_to_the_same_weights(
    finished: Path, source: Path, tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL in the second epoch; the same command again ends like the undisturbed run."""
    for layer in ("02_intermediate", "05_model_input"):
        shutil.copytree(finished / layer, tmp_path / layer)
    parameters = f"--params=ingestion.source={source},preprocessing.image_size=64,training.epochs=2"
    first = "state-01-0001.npz"
    _kill_at(f"06_models/checkpoints/{first}", "run", "--pipelines=training", parameters, storage=tmp_path)
    checkpoints = tmp_path / "06_models" / "checkpoints"
    assert [path.name for path in checkpoints.glob("state-*")] == [first], "within epoch 2"
    with caplog.at_level(logging.INFO, logger="brain_mri"):
        run(tmp_path, "training")
    assert "Going on after epoch 1 of stage 'from scratch', from the last checkpoint." in caplog.messages
    assert not checkpoints.exists(), "its version is published"
    undisturbed, resumed = (trained_weights(str(root)) for root in (finished, tmp_path))
    for one, other in zip(undisturbed, resumed, strict=True):
        np.testing.assert_array_equal(one, other)
