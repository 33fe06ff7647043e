"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

# The same examples on every machine, however busy it is.
settings.register_profile("brain_mri", deadline=None, derandomize=True)
settings.load_profile("brain_mri")

pytest_plugins = ["tests.clouds", "tests.clusters", "tests.disks"]

REPOSITORY = Path(__file__).resolve().parents[1]


def _test_data() -> Path | None:
    """The folder with `data/` and `weights/` that BRAIN_MRI_TEST_DATA names, else one beside the checkout."""
    named = os.environ.get("BRAIN_MRI_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    return folder if folder.is_dir() else None


@pytest.fixture(autouse=True)
def _python_path_stays() -> Iterator[None]:
    """Take back what Kedro's bootstrap does to it.

    What a later test starts would find the sources of this checkout and not the package that it is given.
    """
    before = os.environ.get("PYTHONPATH")
    yield
    os.environ.pop("PYTHONPATH", None)
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans, or a skip that says what is missing."""
    folder = _test_data()
    for candidate in (folder / "data" / "brain-tumor-mri", folder / "brain-tumor-mri") if folder else ():
        if candidate.is_dir():
            return candidate
    pytest.skip("no real scans: set BRAIN_MRI_TEST_DATA to the folder that holds data/brain-tumor-mri")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The real MobileNetV2 ImageNet weights without a top, or a skip that says what is missing."""
    folder = _test_data()
    weights = folder / "weights" / "mobilenet_v2_1.0_224_notop.weights.h5" if folder else None
    if weights is None or not weights.is_file():
        pytest.skip("no real weights: set BRAIN_MRI_TEST_DATA to the folder that holds weights/")
    return weights


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A real Spark session on all cores, with its event log in `spark_events`."""
    from brain_mri.spark import session

    events = tmp_path_factory.mktemp("spark_events")
    session.configure(
        {
            "spark.master": "local[*]",  # as in conf/local: whole runs of the project share this session
            "spark.ui.enabled": False,
            "spark.log.level": "ERROR",
            "spark.eventLog.enabled": True,
            "spark.eventLog.dir": events.as_uri(),
            "spark.eventLog.compress": False,
            "spark.eventLog.rolling.enabled": False,
        }
    )
    active = session.get_session()
    yield active
    active.stop()


@pytest.fixture
def make_scans(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Draw a small phantom folder: `make_scans(images=60, seed=1)` returns its path."""
    from brain_mri.imaging.phantom import write_phantom_folder

    def make(images: int = 60, seed: int = 1) -> Path:
        folder = tmp_path / f"phantom-{images}-{seed}"
        write_phantom_folder(folder, images=images, seed=seed, processes=1)
        return folder

    return make


@pytest.fixture
def parameters() -> dict[str, Any]:
    """What the configuration files hold, all sections."""
    values: dict[str, Any] = {}
    for path in (REPOSITORY / "conf" / "base").glob("parameters*.yml"):
        values |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return values
