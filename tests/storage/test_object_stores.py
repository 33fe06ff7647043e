from __future__ import annotations

import numpy as np
import pytest

from brain_mri.storage.files import open_filesystem, read_file, replace_file
from brain_mri.storage.object_stores import CHUNK, is_object_store
from brain_mri.storage.retry import retried
from tests.clouds import Cloud

CONTENT = np.random.default_rng(1).bytes(2 * CHUNK + 12_345)


def test_a_disk_is_none() -> None:
    assert not is_object_store(open_filesystem("/tmp")[0])
    assert not is_object_store(open_filesystem("memory://x")[0])


def test_a_file_appears_with_its_last_chunk(cloud: Cloud) -> None:
    filesystem, path = open_filesystem(f"{cloud.url}/folder/shard.tar")
    assert is_object_store(filesystem)
    with replace_file(filesystem, path) as stream:
        stream.write(CONTENT[: CHUNK + 5])
        assert not filesystem.exists(path)
        stream.write(CONTENT[CHUNK + 5 :])
    assert read_file(filesystem, path) == CONTENT
    assert filesystem.find(cloud.url) == [path], "nothing is left beside it"


def test_a_file_that_was_broken_off_is_not_seen_and_the_old_one_stays(cloud: Cloud) -> None:
    filesystem, path = open_filesystem(f"{cloud.url}/shard.tar")
    for old in (b"", b"old"):
        if old:
            with replace_file(filesystem, path) as stream:
                stream.write(old)
        with pytest.raises(RuntimeError, match="on the way"), replace_file(filesystem, path) as stream:
            stream.write(CONTENT)
            raise RuntimeError("on the way")
        filesystem.invalidate_cache()
        assert filesystem.exists(path) == bool(old)
        if old:
            assert read_file(filesystem, path) == old


def test_a_connection_that_is_cut_in_the_middle_of_a_chunk_costs_nothing_but_time(cloud: Cloud) -> None:
    filesystem, path = open_filesystem(f"{cloud.url}/shard.tar")
    cloud.line.cut_after, cloud.line.cuts = CHUNK // 2, 1
    attempts = []

    def write() -> None:
        attempts.append(len(cloud.line.cut))
        with replace_file(filesystem, path) as stream:
            for start in range(0, len(CONTENT), 2**20):
                stream.write(CONTENT[start : start + 2**20])

    retried(write, path)
    assert len(cloud.line.cut) == 1, "nothing was cut"
    assert cloud.line.cut[0] > CHUNK // 2
    assert read_file(filesystem, path) == CONTENT
    if cloud.url.startswith("s3"):
        assert attempts == [0], "only the chunk was sent again"
