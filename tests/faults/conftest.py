"""A cluster that the tests break, and what a run makes on it that nothing disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from brain_mri.imaging.phantom import write_phantom_folder
from tests.cluster_runs import Project, end_all, finish, results
from tests.clusters import Cluster, running_cluster
from tests.faults.storage import TABLES, Storage

ROOT = "hdfs:///undisturbed"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Let no run of a test that failed go on, not even while fixtures mend what they made."""
    end_all()


@pytest.fixture(scope="package")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms of these tests alone: runs draw theirs into a folder that all runs share."""
    folder = tmp_path_factory.mktemp("source") / "scans"
    write_phantom_folder(folder, images=400, seed=6, processes=2)
    return folder


@pytest.fixture(scope="package")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for all tests here; each mends what the one before it broke."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def whole_cluster(own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """That cluster, with everything started again that an earlier test ended."""
    own_cluster.mend()
    own_cluster.use(monkeypatch)
    return own_cluster


@pytest.fixture(scope="package")
def project(own_cluster: Cluster, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project, to be run on that cluster with those phantoms."""
    environment = {**own_cluster.base_environment, "BRAIN_MRI_DATA": str(source)}
    return Project(tmp_path_factory.mktemp("project"), environment)


@pytest.fixture(scope="package")
def undisturbed(own_cluster: Cluster, project: Project) -> dict[str, str]:
    """What ingestion and preprocessing make below `ROOT` if nothing disturbs them."""
    own_cluster.mend()
    finish(project.run("--pipelines=ingestion,preprocessing", root=ROOT))
    with pytest.MonkeyPatch.context() as patch:
        own_cluster.use(patch)
        return results(ROOT, TABLES)


@pytest.fixture
def storage(undisturbed: dict[str, str], whole_cluster: Cluster) -> Storage:
    """The storage of that cluster, whole."""
    storage = Storage(whole_cluster)
    storage.mend()
    return storage


@pytest.fixture
def root(storage: Storage, undisturbed: dict[str, str]) -> Iterator[str]:
    """The root with the results of the undisturbed run, which a test may let a run replace."""
    yield ROOT
    storage.mend()
    assert results(ROOT, TABLES) == undisturbed, "the test must leave the results as they were"


@pytest.fixture
def packed_root(storage: Storage, root: str) -> str:
    """That root without its model inputs, which a run makes anew then: what is there is not made again."""
    storage.ask("/undisturbed/05_model_input", "DELETE&recursive=true", "DELETE")
    return root


@pytest.fixture
def new_root(storage: Storage) -> Iterator[str]:
    """A root of the test's own, removed afterwards."""
    yield "hdfs:///new"
    storage.mend()
    storage.ask("/new", "DELETE&recursive=true", "DELETE")
