"""A cluster is started only on folders that belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from brain_mri.cluster.stored import StoredDataError, check_stored_data, is_formatted


def fill(storage: Path, name: str, identity: str = "CID-1") -> None:
    """Make a folder as Hadoop leaves it."""
    current = storage / name / "current"
    current.mkdir(parents=True)
    (current / "VERSION").write_text(f"#Sat Nov 21\nnamespaceID=7\nclusterID={identity}\n", encoding="utf-8")


def test_folders_that_belong_together_are_accepted(tmp_path: Path) -> None:
    check_stored_data(tmp_path / "absent", datanodes=3)
    for name in ("name", "data-1", "data-2"):
        fill(tmp_path, name)
    (tmp_path / "data-3").mkdir()
    check_stored_data(tmp_path, datanodes=2)
    check_stored_data(tmp_path, datanodes=5)
    assert is_formatted(tmp_path)


def test_fewer_datanodes_than_hold_data_are_refused(tmp_path: Path) -> None:
    for name in ("name", "data-1", "data-3"):
        fill(tmp_path, name)
    with pytest.raises(
        StoredDataError, match=r"the data of 3 DataNodes, but 2 were asked for.*--datanodes 3"
    ):
        check_stored_data(tmp_path, datanodes=2)


def test_blocks_without_their_namenode_are_not_formatted_over(tmp_path: Path) -> None:
    fill(tmp_path, "data-1")
    (tmp_path / "name").mkdir()
    assert not is_formatted(tmp_path)
    with pytest.raises(StoredDataError, match=r"data-1 holds blocks, but .*name.* is empty"):
        check_stored_data(tmp_path, datanodes=1)


def test_blocks_of_another_filesystem_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "name", "CID-1")
    fill(tmp_path, "data-1", "CID-2")
    with pytest.raises(StoredDataError, match=r"belongs to the filesystem CID-2, but .*name to CID-1"):
        check_stored_data(tmp_path, datanodes=1)
