"""It fetches through the user's `kaggle` command, checks counts, and comes whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from brain_mri.download import EXPECTED_COUNTS, DownloadError, DownloadSummary, download_kaggle


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `kaggle` command on PATH that unpacks an archive of the test, as the real one does with `--unzip`."""
    archive = tmp_path / "archive"
    command = tmp_path / "bin" / "kaggle"
    command.parent.mkdir()
    command.write_text(
        "#!/bin/sh\n"
        'test "$1 $2" = "datasets download" || exit 2\n'
        'test "$3 $4 $6" = "masoudnickparvar/brain-tumor-mri-dataset --path --unzip" || exit 3\n'
        f"'{sys.executable}' -m zipfile --extract '{archive}.zip' \"$5\"\n",
        encoding="utf-8",
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    return archive


def write_archive(archive: Path, counts: dict[str, dict[str, int]]) -> None:
    for half, classes in counts.items():
        for label, count in classes.items():
            (archive / half / label).mkdir(parents=True)
            for number in range(count):
                (archive / half / label / f"{number}.jpg").touch()
    shutil.make_archive(str(archive), "zip", archive)


def test_the_data_appears_whole_and_other_counts_are_said(kaggle: Path, tmp_path: Path) -> None:
    write_archive(kaggle, {"Training": {"glioma": 3, "notumor": 2}, "Testing": {"glioma": 1, "cyst": 1}})
    target = tmp_path / "data" / "01_raw" / "brain-tumor-mri"
    summary = download_kaggle(target)
    assert summary.total == 7
    assert summary.counts["Training"] == {"glioma": 3, "notumor": 2}
    assert (target / "Testing" / "cyst" / "0.jpg").is_file()
    assert [entry.name for entry in target.parent.iterdir()] == ["brain-tumor-mri"]
    assert f"7 scans in {target}. The counts differ" in str(summary)
    assert "Training/glioma: 3, expected 1,321" in str(summary)
    assert "Testing/cyst: 1, expected 0" in str(summary)


def test_the_expected_counts_are_the_measured_ones() -> None:
    assert [sum(classes.values()) for classes in EXPECTED_COUNTS.values()] == [5712, 1311]
    summary = DownloadSummary(Path("somewhere"), EXPECTED_COUNTS)
    assert str(summary) == "7,023 scans in somewhere, in every class as many as expected."


@pytest.mark.realdata
def test_the_expected_counts_are_those_of_the_real_training_half(real_data: Path) -> None:
    training = real_data / "Training"
    assert {label: len(list((training / label).iterdir())) for label in EXPECTED_COUNTS["Training"]} == dict(
        EXPECTED_COUNTS["Training"]
    )


def test_another_layout_is_an_error_that_leaves_nothing(kaggle: Path, tmp_path: Path) -> None:
    write_archive(kaggle, {"images": {"glioma": 1}})
    with pytest.raises(DownloadError, match="Training and Testing, but it holds: images"):
        download_kaggle(tmp_path / "raw" / "mri")
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_failing_client_is_an_error_that_leaves_nothing(kaggle: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"ended with status 1.*kaggle\.json"):  # there is no archive
        download_kaggle(tmp_path / "raw" / "mri")
    assert list((tmp_path / "raw").iterdir()) == []


def test_existing_data_is_not_touched(kaggle: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is there already"):
        download_kaggle(tmp_path)


def test_without_the_client_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(DownloadError, match=r"pipx install kaggle.*kaggle\.json"):
        download_kaggle(tmp_path / "mri")
