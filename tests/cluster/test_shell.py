"""Hadoop's own shell."""

from __future__ import annotations

import pytest

from brain_mri.cluster.shell import ShellError, run_shell


def test_without_a_cluster_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    with pytest.raises(ShellError, match="`kedro cluster up`, or set HADOOP_CONF_DIR"):
        run_shell(["-ls", "/"])
