"""The ways of preprocessing that are compared, each in a process of its own: see `benchmarks.measure`.

A way is a context manager over a `Job`: it starts what it needs, yields a function that makes one pass over
all images and returns how many it prepared, and ends what it started. What a pass writes goes to
`<root>/output`, which is emptied before the next one; that time does not count.
"""

# ruff: noqa: PLC0415 - a way imports what it needs, so that the others are measured without
from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import MARK, Job
from brain_mri.imaging.prepare import PrepareOptions, prepare_scan
from brain_mri.imaging.resize import use_one_thread
from brain_mri.storage.files import open_filesystem, remove

if TYPE_CHECKING:
    import ray
    import tensorflow as tf
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

SIZE = 224
STEPS = 200
_CHUNK = 64
_FILES_A_TASK = 20  # of the plain way

Counts = dict[str, float]
Pass = Callable[[], Counts]


def output(root: str) -> str:
    """URL of what a pass writes."""
    return f"{root}/output"


def model_inputs(root: str, split: str) -> str:
    """URL of the model inputs of a split, as this project writes them."""
    return f"{output(root)}/model_inputs_{split}.parquet"


@contextmanager
def spark_session(environment: str, cores: int) -> Iterator[SparkSession]:
    """A session as a run has it, with this many cores."""
    from benchmarks.storage import configuration
    from brain_mri.spark import session
    from brain_mri.storage.hadoop import default_filesystem

    configured = {
        **configuration(environment)["spark"],
        "spark.eventLog.enabled": False,
        "spark.cores.max": cores,
        "spark.ui.showConsoleProgress": False,
    }
    if environment == "local":
        configured["spark.master"] = f"local[{cores}]"
    session.configure(configured, default_filesystem() if environment == "cluster" else None)
    spark = session.get_session()
    try:
        yield spark
    finally:
        spark.stop()


@contextmanager
def prepare_with_project(root: str, cores: int, environment: str) -> Iterator[Pass]:
    """This project: its nodes, from packed scans to model inputs of three splits, written and verified."""
    from brain_mri.cohort.split import SPLITS
    from brain_mri.datasets.prepared import PreparedPartsDataset
    from brain_mri.datasets.scans import PackedScansDataset
    from brain_mri.datasets.shards import ShardSet
    from brain_mri.datasets.spark_shards import SparkShardsDataset
    from brain_mri.pipelines.preprocessing import nodes
    from brain_mri.pipelines.preprocessing.parameters import PreprocessingParameters

    scans = PackedScansDataset(filepath=f"{root}/scans").load()
    manifest = scans.inspections()
    manifest["label"] = manifest["path"].str.split("/").str[0]
    manifest["split"] = [SPLITS[max(0, number % 20 - 17)] for number in range(len(manifest))]
    metadata = {"classes": sorted(set(manifest["label"]))}
    parameters = PreprocessingParameters(image_size=SIZE, crop_to_head=False, clahe=False)
    prepared = PreparedPartsDataset(
        filepath=f"{output(root)}/prepared_parts", parts=model_inputs(root, "{split}")
    )

    def run_pass() -> Counts:
        prepared.save(nodes.prepare_scans(scans, manifest, metadata, parameters))
        for split, summary in zip(SPLITS, nodes.publish_model_inputs(prepared.load()), strict=True):
            SparkShardsDataset(filepath=model_inputs(root, split)).save(summary)
        return {"images": sum(ShardSet(model_inputs(root, split)).rows for split in SPLITS)}

    with spark_session(environment, cores):
        yield run_pass


def project(job: Job) -> AbstractContextManager[Pass]:
    """This project, with the settings of the job."""
    return prepare_with_project(job.root, job.cores, job.environment)


@contextmanager
def plain(job: Job) -> Iterator[Pass]:
    """The plain way, on the session that this project would have too."""
    from pyspark import cloudpickle

    from benchmarks.plain import preprocess

    # Executors do not find this folder.
    cloudpickle.register_pickle_by_value(preprocess)  # type: ignore[no-untyped-call]  # ships no types
    with spark_session(job.environment, job.cores) as spark:

        def run_pass() -> Counts:
            parts = job.images // _FILES_A_TASK + 1
            preprocess.preprocess(spark.sparkContext, f"{job.root}/files", output(job.root), parts)
            return {"images": job.images}

        yield run_pass
        written = spark.sparkContext.pickleFile(output(job.root)).count()
    if written != job.images:
        raise RuntimeError(f"The plain way wrote {written} of {job.images} images.")


@contextmanager
def tf_data(job: Job) -> Iterator[Pass]:
    """`tf.data` over the folder, up to the batches that training would take."""
    dataset = tensorflow_images(job.files, job.cores).batch(32).prefetch(-1)

    def run_pass() -> Counts:
        return {"images": sum(len(batch) for batch in dataset)}

    yield run_pass


def tensorflow_images(folder: str, cores: int) -> tf.data.Dataset:
    """Images of `folder/<class>/` in the order of their names, float32 (224, 224, 1), 0 to 255."""
    import tensorflow as tf

    def prepare(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(tf.io.read_file(path), channels=1, expand_animations=False)
        return tf.image.resize(image, (SIZE, SIZE), method=tf.image.ResizeMethod.AREA)

    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    files = tf.data.Dataset.list_files(f"{folder}/*/*", shuffle=False)
    return files.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).with_options(options)


@contextmanager
def ray_data(job: Job) -> Iterator[Pass]:
    """Ray Data over the folder, up to the batches that training would take."""
    with ray_session(job.cores):

        def run_pass() -> Counts:
            batches = ray_images(job.files).iter_batches(batch_size=32)
            return {"images": sum(len(batch["image"]) for batch in batches)}

        yield run_pass


@contextmanager
def ray_session(cores: int) -> Iterator[None]:
    """Ray on this machine alone, without its dashboard."""
    # As on macOS: it would turn 127.0.0.1 into the machine's own address, and listen on all of them.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray.data

    ray.init(
        num_cpus=cores,
        object_store_memory=2**30,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


def ray_images(folder: str) -> ray.data.Dataset:
    """Images of `folder`: uint8 (224, 224) in the column `image`."""
    import cv2
    import ray

    def resize(row: dict[str, Any]) -> dict[str, NDArray[Any]]:
        return {"image": cv2.resize(row["image"], (SIZE, SIZE), interpolation=cv2.INTER_AREA)}

    return ray.data.read_images(folder, mode="L").map(resize)


@contextmanager
def processes(job: Job) -> Iterator[Pass]:
    """The limit: this project's decoder and resize in plain processes, nothing around it, nothing written."""
    paths = sorted(str(path) for path in Path(job.files).glob("*/*"))
    if job.cores == 1:
        yield lambda: {"images": decode(paths)}
        return
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ProcessPoolExecutor(job.cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda: {"images": sum(pool.map(decode, chunks))}


def decode(paths: list[str]) -> int:
    """Prepare files and forget them; how many there were."""
    use_one_thread()
    options = PrepareOptions(image_size=SIZE)
    for path in paths:
        prepare_scan(Path(path).read_bytes(), options)
    return len(paths)


@contextmanager
def feed(job: Job, batch_size: int, shuffle: bool) -> Iterator[Pass]:
    """Training steps of `compact` on model inputs: how long they wait for the next batch."""
    import keras

    from brain_mri.datasets.shards import ShardSet
    from brain_mri.models.augmentation import draw
    from brain_mri.models.network import build_network
    from brain_mri.models.recipe import make_recipe
    from brain_mri.models.steps import TrainingNetwork, make_train_step

    shards = ShardSet(model_inputs(job.root, "train"))
    recipe = make_recipe(
        "baseline", backbone="compact", weights=None, image_size=SIZE, classes=shards.classes, seed=1
    )
    model = build_network(recipe)
    network = TrainingNetwork(model, recipe)
    step = make_train_step(network, model, keras.optimizers.Adam(), recipe, [1.0] * len(shards.classes))

    def run_pass() -> Counts:
        images, waited, started = 0, 0.0, time.perf_counter()
        batches = iter(shards.tensorflow(batch_size, 1 if shuffle else None).take(STEPS))
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                return {"images": images, "idle": waited / (time.perf_counter() - started)}
            pixels, labels, index = batch
            draws = draw(index.numpy(), 1, 0, 1, network.draws)
            loss, _ = step(pixels, labels, draws, float(len(labels)))
            float(loss)  # a step has ended when its loss is known
            images += len(labels)

    yield run_pass


WAYS: dict[str, Callable[[Job], AbstractContextManager[Pass]]] = {
    "plain": plain,
    "project": project,
    "tf.data": tf_data,
    "Ray Data": ray_data,
    "processes": processes,
    "feed 16": partial(feed, batch_size=16, shuffle=False),
    "feed 32 shuffled": partial(feed, batch_size=32, shuffle=True),
}


def main() -> None:
    """Run one way: its name and its job as JSON are the arguments."""
    name, job = sys.argv[1], Job(**json.loads(sys.argv[2]))
    with WAYS[name](job) as run_pass:
        for _ in range(job.passes):
            if name in ("plain", "project"):
                remove(*open_filesystem(output(job.root)))
            _say({})
            _say(run_pass())


def _say(counts: Counts) -> None:
    print(f"{MARK}{json.dumps(counts)}", flush=True)


if __name__ == "__main__":
    main()
