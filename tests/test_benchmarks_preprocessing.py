"""What `benchmarks/preprocessing.py` rests on: other bytes and ways, the same pixels; sums that are right."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks import preprocessing
from benchmarks.image_set import with_comment, write_images
from benchmarks.measure import PROJECT, Job, Measured, Watch, measure
from benchmarks.plain.preprocess import prepare as prepare_plainly
from benchmarks.preprocessing import HDFS, LIMIT, LOCAL, PLAIN, SEQUENTIAL, projected, ratio
from benchmarks.storage import choose_scans
from benchmarks.ways import SIZE, ray_images, ray_session, tensorflow_images
from brain_mri.imaging.phantom.draw import draw_phantom
from brain_mri.imaging.prepare import PrepareOptions, prepare_scan

OPTIONS = PrepareOptions(image_size=SIZE)


def jpeg(seed: int = 1) -> bytes:
    return encoded(seed, "JPEG")


def encoded(seed: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10)).astype(np.uint8)
    Image.fromarray(pixels).resize((320, 384), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def table(folder: Path, contents: dict[str, bytes]) -> pd.DataFrame:
    """Scans as `choose_scans` returns them."""
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return pd.DataFrame([(path, str(folder / path)) for path in contents], columns=["path", "url"])


def test_a_comment_changes_the_bytes_and_no_pixel() -> None:
    content = jpeg()
    copies = [with_comment(content, f"copy {number}") for number in range(3)]
    assert len({content, *copies}) == 4
    for copy in copies:
        assert (prepare_scan(copy, OPTIONS) == prepare_scan(content, OPTIONS)).all()
        with Image.open(io.BytesIO(copy)) as image:
            image.load()
    with pytest.raises(ValueError, match="Only a JPEG"):
        with_comment(encoded(1, "PNG"), "copy")


def test_images_are_repeated_with_other_bytes_and_png_is_not(tmp_path: Path) -> None:
    scans = table(tmp_path, {"a/1.jpg": jpeg(1), "Testing/b/2.jpg": jpeg(2), "b/3.png": encoded(3, "PNG")})
    files = write_images(scans, tmp_path / "files", 12)
    contents = [Path(url).read_bytes() for url in files["url"]]
    assert len({hashlib.sha256(content).digest() for content in contents}) == 12
    assert sorted({path.split("/")[0] for path in files["path"]}) == ["a", "b"]
    assert {len(path.split("/")) for path in files["path"]} == {2}
    assert files["path"].str.endswith(".png").sum() == 1
    assert files["bytes"].tolist() == [len(content) for content in contents]
    assert len(write_images(scans.iloc[2:], tmp_path / "png", 12)) == 1
    assert len(write_images(scans, tmp_path / "few", 2)) == 2


def test_the_plain_way_is_short_and_prepares_the_same_picture() -> None:
    assert len((PROJECT / "benchmarks/plain/preprocess.py").read_text().splitlines()) <= 40
    label, pixels = prepare_plainly(("hdfs://host/files/glioma/1.jpg", jpeg()))
    assert (label, pixels.shape, pixels.dtype) == ("glioma", (SIZE, SIZE), np.float32)
    assert distance(255 * pixels, jpeg()) < 1


def distance(pixels: NDArray[np.float32], content: bytes) -> float:
    """Mean absolute difference from our own pixels, in grey levels."""
    return float(
        np.abs(pixels.reshape(SIZE, SIZE) - prepare_scan(content, OPTIONS).astype(np.float32)).mean()
    )


@pytest.fixture
def phantoms(tmp_path: Path) -> dict[str, bytes]:
    """Four files in folders of classes, by their path."""
    contents = {}
    for seed, label in enumerate(("glioma", "notumor")):
        for side in (192, 384):
            buffer = io.BytesIO()
            Image.fromarray(draw_phantom(label, seed, side).pixels).save(buffer, "JPEG")
            contents[f"{label}/{side}.jpg"] = buffer.getvalue()
    table(tmp_path / "phantoms", contents)
    return contents


@pytest.mark.slow
@pytest.mark.tensorflow
def test_tf_data_prepares_the_same_pictures(phantoms: dict[str, bytes], tmp_path: Path) -> None:
    images = list(tensorflow_images(str(tmp_path / "phantoms"), cores=1).as_numpy_iterator())
    distances = [
        distance(image, phantoms[path]) for image, path in zip(images, sorted(phantoms), strict=True)
    ]
    assert max(distances) < 1, distances


@pytest.mark.slow
def test_ray_data_prepares_the_same_pictures(phantoms: dict[str, bytes], tmp_path: Path) -> None:
    with ray_session(cores=1):
        for path, content in phantoms.items():
            alone = tmp_path / path.replace("/", "-")
            alone.mkdir()
            shutil.copy(tmp_path / "phantoms" / path, alone)
            (row,) = ray_images(str(alone)).take_all()
            assert distance(row["image"], content) < 1, path


def test_a_way_is_measured_in_a_process_of_its_own(make_scans: Callable[..., Path], tmp_path: Path) -> None:
    files = write_images(choose_scans(make_scans(60)), tmp_path / "files", 100)
    job = Job(str(tmp_path / "files"), str(tmp_path), images=len(files), cores=2, passes=2)
    found = measure("processes", job)
    assert (found.images, found.cores, found.counts) == (100, 2, {"images": 100})
    assert min(found.cold_seconds, found.warm_seconds) > 0
    assert found.peak_bytes > 20e6
    with pytest.raises(RuntimeError, match="prepared 100 of 101 images"):
        measure("processes", replace(job, images=101))
    with pytest.raises(RuntimeError, match="KeyError: 'no such way'"):
        measure("no such way", job)


def test_memory_and_time_of_children_count() -> None:
    child = "x = b'1' * 200_000_000; sum(range(5_000_000)); print('ready', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        watch = Watch(process.pid)
        with watch.running():
            assert process.stdout is not None
            process.stdout.readline()
            seconds = watch.sample()
            process.communicate(b"\n")
    assert 200e6 < watch.peak_bytes < 500e6
    assert seconds > 0.05


def run(way: str, rate: float, cores: int = 2, start: float = 10) -> Measured:
    seconds = 1000 / rate
    return Measured(way, 1000, cores, start + seconds, seconds, 1.5 * seconds, 123_000_000, {"images": 1000})


@pytest.fixture
def runs() -> dict[str, Measured]:
    return {
        PLAIN: run("plain", 50),
        HDFS: run("project", 1000),
        f"{HDFS}, 1": run("project", 600, cores=1),
        f"{LOCAL}, 1": run("project", 800, cores=1),
        LOCAL: run("project", 1500),
        "tf.data": run("tf.data", 1400),
        "Ray Data": run("Ray Data", 500),
        LIMIT: run("processes", 2000),
        SEQUENTIAL: run("processes", 1100, cores=1),
        "feed 16": replace(run("feed 16", 300), counts={"images": 1000, "idle": 0.0312}),
    }


def test_ratios_and_projections_are_those_of_warm_passes(runs: dict[str, Measured]) -> None:
    assert ratio(runs[HDFS], runs[PLAIN]) == "20.00"
    assert ratio(runs[LOCAL], runs[LIMIT]) == "0.75"
    assert ratio(runs[LOCAL], None) == "–"
    assert projected(runs[HDFS], 50_000) == pytest.approx(10 + 50)


@pytest.mark.parametrize("with_hdfs", [True, False])
def test_tables_are_whole_with_and_without_hdfs(runs: dict[str, Measured], with_hdfs: bool) -> None:
    if not with_hdfs:
        runs = {name: found for name, found in runs.items() if not name.startswith((PLAIN, HDFS))}
    tables = preprocessing.tables(runs)
    for entry in tables:
        assert all(len(row) == len(entry["columns"]) for row in entry["rows"])
        assert all(isinstance(cell, str) for row in entry["rows"] for cell in row)
    comparison, scaling, projection, idleness = (entry["rows"] for entry in tables)
    assert [row[0] for row in comparison] == [name for name in preprocessing.COMPARED if name in runs]
    local = [row[0] for row in scaling if row[0].startswith("local")]
    assert local == ["local[1]", "local[2]", "local[*], here local[2]"]
    assert sum(row[0].startswith("cluster") for row in scaling) == (2 if with_hdfs else 0)
    assert len(projection) == (4 if with_hdfs else 2)
    assert idleness == [["16", "300", "3.1 %"]]


def test_the_section_is_json_and_has_what_the_report_draws(runs: dict[str, Measured]) -> None:
    results = {"date": "2026-01-31", "machine": "2 cores", "synthetic": True, "images": 1000, "bytes": 10**7}
    figure = preprocessing.draw(runs, synthetic=True)
    section = json.loads(json.dumps(preprocessing.section(results, runs, figure)))
    assert len(section["tables"]) == 4
    assert base64.b64decode(section["figures"][0]["png"]).startswith(b"\x89PNG")
    places = [(entry["place"], entry["workers"]) for entry in section["runtime_vs_workers"]]
    assert places == [("local", 1), ("local", 2), ("cluster", 1), ("cluster", 2)]
    assert section["synthetic"] is True
