from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from brain_mri.storage.files import open_filesystem
from brain_mri.storage.parquet import open_parquet, read_parquet, write_parquet

TABLE = pa.table({"scan_id": ["a", "b", "c"], "label": [0, 1, 2]})


@pytest.fixture
def written(tmp_path: Path) -> str:
    filesystem, path = open_filesystem(str(tmp_path / "part.parquet"))
    with write_parquet(filesystem, path, TABLE.schema, "zstd") as part:
        for batch in TABLE.to_batches(max_chunksize=2):
            part.add(batch)
            part.flush()
    return path


def test_a_file_is_read_whole_by_columns_or_by_row_groups(written: str) -> None:
    filesystem, path = open_filesystem(written)
    assert read_parquet(filesystem, path).equals(TABLE)
    assert read_parquet(filesystem, path, ["label"]).equals(TABLE.select(["label"]))
    with pytest.raises(KeyError, match="labels"):
        read_parquet(filesystem, path, ["scan_id", "labels"])
    with open_parquet(filesystem, path) as file:
        assert file.read_row_group(1, use_threads=False).equals(TABLE.slice(2))


_THREADS = """
import os, sys
import pyarrow.parquet as pq
from brain_mri.storage.files import open_filesystem
from brain_mri.storage.parquet import read_parquet
filesystem, path = open_filesystem(sys.argv[1])
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
if sys.argv[2] == "ours":
    read_parquet(filesystem, path)
else:
    with filesystem.open(path, "rb") as stream:
        pq.read_table(stream)
print(threads() - before, flush=True)
os._exit(0)  # Arrow's way may abort here
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_reading_starts_no_thread_that_could_outlive_the_interpreter(written: str) -> None:
    started = {
        way: int(subprocess.check_output([sys.executable, "-c", _THREADS, written, way]))
        for way in ("ours", "arrows")
    }
    assert started["ours"] == 0
    assert started["arrows"] > 0, "the test would not see threads"
