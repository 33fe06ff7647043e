"""A cluster whose storage the tests break, and what a run makes on it that nothing disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from brain_mri.imaging.phantom import write_phantom_folder
from tests.cluster_runs import Project, finish, results
from tests.clusters import Cluster, running_cluster
from tests.faults.storage import TABLES, Storage

ROOT = "hdfs:///undisturbed"


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms of these tests alone: runs draw theirs into a folder that all runs share."""
    folder = tmp_path_factory.mktemp("source") / "scans"
    write_phantom_folder(folder, images=400, seed=6, processes=2)
    return folder


@pytest.fixture(scope="session")
def storage_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for all tests of storage; each mends what the one before it broke."""
    with running_cluster(tmp_path_factory.mktemp("storage")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def project(storage_cluster: Cluster, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project, to be run on that cluster with those phantoms."""
    environment = {**storage_cluster.base_environment, "BRAIN_MRI_DATA": str(source)}
    return Project(tmp_path_factory.mktemp("project"), environment)


@pytest.fixture(scope="session")
def undisturbed(storage_cluster: Cluster, project: Project) -> dict[str, str]:
    """What ingestion and preprocessing make below `ROOT` if nothing disturbs them."""
    finish(project.run("--pipelines=ingestion,preprocessing", root=ROOT))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in storage_cluster.environment.items():
            patch.setenv(name, value)
        return results(ROOT, TABLES)


@pytest.fixture
def storage(
    storage_cluster: Cluster, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    """The storage of that cluster, whole; and whole again afterwards."""
    for name, value in storage_cluster.environment.items():
        monkeypatch.setenv(name, value)
    storage = Storage(storage_cluster)
    storage.mend()
    yield storage
    storage.mend()


@pytest.fixture
def root(storage: Storage, undisturbed: dict[str, str]) -> Iterator[str]:
    """The root with the results of the undisturbed run, which a test may let a run replace."""
    yield ROOT
    storage.mend()
    assert results(ROOT, TABLES) == undisturbed, "the test must leave the results as they were"


@pytest.fixture
def new_root(storage: Storage) -> Iterator[str]:
    """A root of the test's own, removed afterwards."""
    yield "hdfs:///new"
    storage.mend()
    storage.ask("/new", "DELETE&recursive=true", "DELETE")
