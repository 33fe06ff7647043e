"""What workers need is looked for before they start, and is what they get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brain_mri.spark.apart import ApartLauncher
from brain_mri.spark.processes import Needs, Seat, TooLittleMemoryError, WorkerDiedError, available_gib
from brain_mri.spark.slots import TooFewSlotsError
from brain_mri.spark.together import TogetherLauncher

pytestmark = pytest.mark.spark


def test_what_a_worker_needs_is_said_in_words() -> None:
    assert str(Needs()) == "1 core"
    assert str(Needs(2, 1.5, 1)) == "2 cores and 1.5 GiB and a GPU"


@pytest.mark.parametrize(
    ("launcher", "beside"), [(TogetherLauncher, "2 workers"), (ApartLauncher, "1 worker")]
)
def test_too_little_memory_is_named_before_a_worker_starts(
    spark: Any, tmp_path: Path, launcher: Any, beside: str
) -> None:
    expected = rf"^{beside} of 1 core and 50000 GiB would be on \S+, where [\d.]+ GiB of memory are available"
    with pytest.raises(TooLittleMemoryError, match=expected):
        launcher(2, Needs(memory_gib=50_000)).run(lambda seat: (tmp_path / "started").touch())
    assert not (tmp_path / "started").exists()


def test_a_container_may_leave_less_than_the_machine_has(tmp_path: Path) -> None:
    whole = available_gib(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{2**30}\n")
    assert available_gib(tmp_path) == pytest.approx(whole, rel=0.1)
    (tmp_path / "memory.max").write_text(f"{3 * 2**29}\n")
    assert available_gib(tmp_path) == 0.5


def test_local_mode_has_no_gpus_to_hand_out(spark: Any) -> None:
    with pytest.raises(TooFewSlotsError, match=r"local mode hands out no GPUs.*distribution=none"):
        TogetherLauncher(1, Needs(gpus=1)).check()


@pytest.mark.slow
def test_a_worker_has_its_memory_and_no_more(spark: Any) -> None:
    def take(mebibytes: int, seat: Seat) -> int:
        memory = bytearray(mebibytes * 2**20)
        time.sleep(2 if mebibytes < 1024 else 600)
        return len(memory)

    launcher = TogetherLauncher(1, Needs(memory_gib=1))
    assert launcher.run(lambda seat: take(600, seat)) == [600 * 2**20]
    with pytest.raises(WorkerDiedError, match=r"(?s)signal 9.*It took 1\.\d GiB of memory and may take 1:"):
        launcher.run(lambda seat: take(1300, seat))


_ON_GPUS = """
import json, os, sys
from brain_mri.spark import session
from brain_mri.spark.processes import Needs
from brain_mri.spark.slots import TooFewSlotsError
from brain_mri.spark.together import TogetherLauncher

session.configure({
    "spark.master": "local-cluster[1,2,1024]", "spark.ui.enabled": False, "spark.log.level": "ERROR",
    "spark.executor.memory": "512m", "spark.executor.resource.gpu.amount": 2,
    "spark.worker.resource.gpu.amount": 2, "spark.worker.resource.gpu.discoveryScript": sys.argv[1],
})
sits = lambda seat: os.environ["CUDA_VISIBLE_DEVICES"]
found = {"asked": TogetherLauncher(2, Needs(gpus=1)).run(sits), "not": TogetherLauncher(2).run(sits)}
try:
    TogetherLauncher(3, Needs(gpus=1)).run(sits)
except TooFewSlotsError as error:
    found["refused"] = str(error)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_spark_gives_each_worker_a_gpu_that_it_knows_of(tmp_path: Path) -> None:
    """Spark's own scheduling, with addresses that its discovery script is told: there need be no GPU."""
    script = tmp_path / "find-gpus"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["6", "7"]}\'\n')
    script.chmod(0o755)
    environment = {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_WORKER_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _ON_GPUS, str(script)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found["asked"]) == ["6", "7"]
    assert found["not"] == ["", ""]
    assert "3 workers of 1 core and a GPU" in found["refused"]
    assert "has room for 2. " in found["refused"]
    assert "spark.executor.resource.gpu.amount" in found["refused"]
