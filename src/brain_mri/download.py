"""Fetch the public Brain Tumor MRI Dataset through Kaggle's own client.

The client is the `kaggle` command, which the user installs and signs in to; it is no dependency here.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

KAGGLE_DATASET = "masoudnickparvar/brain-tumor-mri-dataset"
# Files per half and class in the version of 7,023 scans that this project was measured on.
EXPECTED_COUNTS: Mapping[str, Mapping[str, int]] = {
    "Training": {"glioma": 1321, "meningioma": 1339, "notumor": 1595, "pituitary": 1457},
    "Testing": {"glioma": 300, "meningioma": 306, "notumor": 405, "pituitary": 300},
}
_SIGN_IN = (
    "Sign in once: on kaggle.com, Settings → API, create a token and save it as ~/.kaggle/kaggle.json "
    "(readable by you alone), or set KAGGLE_USERNAME and KAGGLE_KEY."
)


class DownloadError(RuntimeError):
    """The data could not be fetched; the message says how to mend it."""


@dataclass(frozen=True)
class DownloadSummary:
    """What was fetched.

    Attributes:
        folder: the folder with `Training` and `Testing`.
        counts: files by half and class.
    """

    folder: Path
    counts: Mapping[str, Mapping[str, int]]

    @property
    def total(self) -> int:
        """Number of files."""
        return sum(sum(classes.values()) for classes in self.counts.values())

    @property
    def differences(self) -> list[str]:
        """Every half and class whose count is not the expected one, in words; empty if all are."""
        halves = sorted({*self.counts, *EXPECTED_COUNTS}, reverse=True)
        lines = []
        for half in halves:
            found, expected = self.counts.get(half, {}), EXPECTED_COUNTS.get(half, {})
            for label in sorted({*found, *expected}):
                if found.get(label, 0) != expected.get(label, 0):
                    lines.append(
                        f"{half}/{label}: {found.get(label, 0):,}, expected {expected.get(label, 0):,}"
                    )
        return lines

    def __str__(self) -> str:
        """Say how many files lie where, and whether these are the expected ones."""
        if not self.differences:
            return f"{self.total:,} scans in {self.folder}, in every class as many as expected."
        lines = "\n  ".join(self.differences)
        return (
            f"{self.total:,} scans in {self.folder}. The counts differ from those of the version that this "
            f"project was measured on:\n  {lines}"
        )


def download_kaggle(target: Path) -> DownloadSummary:
    """Fetch the dataset into `target`, which appears only when it is complete.

    Other counts than the expected ones are no error, since the authors may publish a new version: the summary
    shows both.

    Args:
        target: folder to make, for example `data/01_raw/brain-tumor-mri`.

    Returns:
        The folder and the files it holds by half and class.

    Raises:
        DownloadError: `target` is there already, there is no `kaggle` command, it failed, or what it fetched
            is not laid out as `Training` and `Testing`.

    Example:
        >>> download_kaggle(Path("data/01_raw/brain-tumor-mri")).total  # doctest: +SKIP
        7023
    """
    if target.exists():
        raise DownloadError(f"{target} is there already. Remove or rename it to download the data again.")
    client = _find_client()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename is one step on one disk; hidden, so that no run takes it for data.
    hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        draft = hidden / target.name
        draft.mkdir()  # with the user's own permissions, which a temporary folder does not have
        command = [client, "datasets", "download", KAGGLE_DATASET, "--path", str(draft), "--unzip"]
        logger.info("Downloading %s: %s", KAGGLE_DATASET, " ".join(command))
        status = subprocess.run(command, check=False).returncode  # noqa: S603 - the user's own client
        if status:
            raise DownloadError(f"The command kaggle ended with status {status} (see above). {_SIGN_IN}")
        folder = _find_halves(draft)
        summary = DownloadSummary(target, count_files(folder))
        folder.rename(target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return summary


def count_files(folder: Path) -> dict[str, dict[str, int]]:
    """Return the number of files in each `<half>/<class>` below `folder`."""
    counts: dict[str, dict[str, int]] = {}
    for half in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        counts[half.name] = {
            label.name: sum(entry.is_file() for entry in label.iterdir())
            for label in sorted(half.iterdir())
            if label.is_dir()
        }
    return counts


def _find_client() -> str:
    """Return the path of the `kaggle` command, from PATH or from this Python's own environment."""
    search = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    client = shutil.which("kaggle", path=search)
    if client is None:
        raise DownloadError(
            "There is no command kaggle on PATH, and Kaggle's data comes through Kaggle's own client. "
            f"Install it: pipx install kaggle. {_SIGN_IN} "
            f"Or download {KAGGLE_DATASET} in a browser and name the unpacked folder: "
            "kedro run --params=ingestion.source=/path/to/folder"
        )
    return client


def _find_halves(draft: Path) -> Path:
    """Return the folder that holds `Training` and `Testing`: the draft or the one folder in it."""
    for folder in [draft, *sorted(draft.iterdir())]:
        if all((folder / half).is_dir() for half in EXPECTED_COUNTS):
            return folder
    found = ", ".join(sorted(entry.name for entry in draft.iterdir())) or "nothing"
    raise DownloadError(
        f"{KAGGLE_DATASET} was expected to hold the folders Training and Testing, but it holds: {found}. "
        "Kaggle may have a new version with another layout. Download it in a browser and name its folder: "
        "kedro run --params=ingestion.source=/path/to/folder"
    )
