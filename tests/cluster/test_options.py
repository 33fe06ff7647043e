"""What may be chosen of a cluster, and what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from brain_mri.cli import cli
from brain_mri.cluster.options import ClusterOptions, OptionError, mebibytes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"datanodes": 0}, "--datanodes is 0, expected 1 or more"),
        ({"datanodes": 1}, "--replication is 2, but 1 DataNodes"),
        ({"workers": -1}, "--workers is -1"),
        ({"worker_cores": -1}, "--worker-cores is -1"),
        ({"namenode_memory": "256"}, "--namenode-memory is '256', expected a size such as 512m or 2g"),
        ({"worker_memory": "0g"}, "--worker-memory is '0g'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        ClusterOptions(**given)
    assert words in str(caught.value)


def test_cores_are_shared_among_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert ClusterOptions(workers=2).cores_per_worker == 4
    assert ClusterOptions(workers=20).cores_per_worker == 1
    assert ClusterOptions(workers=2, worker_cores=3).cores_per_worker == 3


def test_sizes_are_read_as_java_writes_them() -> None:
    assert [mebibytes(size) for size in ("512m", "2g", "3G")] == [512, 2048, 3072]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--replication", "4"], "Error: --replication is 4, but 3 DataNodes hold a block at most 3 times."),
        (["--resourcemanager-http-port", "0"], "--resourcemanager-http-port has no meaning without --yarn."),
        (["--namenode-port", "99999"], "99999 is not in the range 0<=x<=65535"),
        (["--namenode-port", "-1"], "-1 is not in the range 0<=x<=65535"),
    ],
)
def test_a_wrong_option_is_a_sentence_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.setenv("BRAIN_MRI_CLUSTER", str(tmp_path / "cluster"))
    answer = CliRunner().invoke(cli, ["cluster", "up", *words])
    assert answer.exit_code in (1, 2)
    assert sentence in answer.output
    assert not (tmp_path / "cluster").exists()
