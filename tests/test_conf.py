"""Two environments, one catalog: laid side by side they differ in the storage root and in Spark alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"


def _config(environment: str, monkeypatch: pytest.MonkeyPatch, storage: str | None = None) -> Any:
    monkeypatch.delenv("BRAIN_MRI_STORAGE", raising=False)
    if storage:
        monkeypatch.setenv("BRAIN_MRI_STORAGE", storage)
    monkeypatch.setenv("USER", "ada")
    bootstrap_project(REPOSITORY)
    session = KedroSession.create(REPOSITORY, env=environment)
    with session:
        return session.load_context().config_loader


def test_environments_hold_the_same_files_with_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {path.name for path in (CONF / "local").iterdir()}
    assert names == {path.name for path in (CONF / "cluster").iterdir()} == {"globals.yml", "spark.yml"}
    local, cluster = (_config(environment, monkeypatch) for environment in ("local", "cluster"))
    for section in ("globals", "spark"):
        assert local[section].keys() == cluster[section].keys()
    assert local["parameters"] == cluster["parameters"]


@pytest.mark.parametrize(
    ("environment", "root"), [("local", "data"), ("cluster", "hdfs:///user/ada/brain_mri")]
)
def test_every_entry_but_the_raw_source_lies_under_the_root(
    environment: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = _config(environment, monkeypatch)["catalog"]
    entries = {name: entry["filepath"] for name, entry in catalog.items() if not name.startswith("_")}
    assert entries.pop("raw") == "data/01_raw"
    assert [name for name, path in entries.items() if not path.startswith(f"{root}/0")] == []


def test_the_storage_root_can_be_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = _config("local", monkeypatch, storage="/elsewhere")["catalog"]
    assert catalog["metrics"]["filepath"] == "/elsewhere/08_reporting/metrics.json"
