"""The plan of blocks: by the files alone, and hardly another one when some files come or go."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from brain_mri.datasets.blocks import Block, block_key, plan_blocks
from brain_mri.imaging.decode import DecodeLimits

SIZES = st.lists(st.integers(0, 5_000), min_size=2, max_size=200)


def _files(sizes: list[int]) -> pd.DataFrame:
    """Files named by their place."""
    rows = [(f"{place:04d}", "u", size) for place, size in enumerate(sizes)]
    return pd.DataFrame(rows, columns=["path", "url", "bytes"])


def test_the_plan_depends_on_the_files_alone_and_keeps_sizes_together() -> None:
    sizes = [10, 20, 20, 20, 30, 40, 50, 60, 70] * 40
    files = pd.DataFrame({"path": [f"{n:04d}" for n in range(len(sizes))], "url": "u", "bytes": sizes})
    plan = plan_blocks(files, block_bytes=2_000)
    shuffled = plan_blocks(files.sample(frac=1, random_state=1), block_bytes=2_000)
    assert plan == shuffled
    assert sorted(path for block in plan for path, _ in block.files) == files["path"].tolist()
    small = {path for path, size in zip(files["path"], sizes, strict=True) if size == 10}
    assert sum(1 for block in plan if small & {path for path, _ in block.files}) == 1


def test_a_block_holds_files_of_all_kinds() -> None:
    """Classes differ in size and folder; a block of one class would make batches of one class."""
    rows = [
        (f"{label}/{n}.jpg", "u", base + n) for label, base in (("a", 1000), ("b", 9000)) for n in range(500)
    ]
    plan = plan_blocks(pd.DataFrame(rows, columns=["path", "url", "bytes"]), block_bytes=400_000)
    assert len(plan) > 3
    for block in plan[:-1]:
        share = sum(path.startswith("a/") for path, _ in block.files) / len(block.files)
        assert 0.25 < share < 0.75


@given(SIZES, st.integers(1_000, 2**20))
def test_every_file_is_in_one_block(sizes: list[int], block_bytes: int) -> None:
    files = _files(sizes)
    plan = plan_blocks(files, block_bytes)
    assert sorted(path for block in plan for path, _ in block.files) == files["path"].tolist()
    assert all(block.files for block in plan)


@given(SIZES)
def test_a_file_more_or_less_changes_one_block(sizes: list[int]) -> None:
    files = _files(sizes)
    without, with_it = plan_blocks(files.iloc[:-1]), plan_blocks(files)
    changed = set(with_it) - set(without)
    assert len(changed) == 1
    assert len(set(without) - set(with_it)) <= 1, "the block before, if there was one"
    assert [path for path, _ in next(iter(changed)).files].count(files["path"].iloc[-1]) == 1


def test_files_of_one_size_are_cut_into_even_blocks_that_hardly_change() -> None:
    """As uncompressed images are."""
    files = _files([100_000] * 1_000)
    plan = plan_blocks(files.iloc[:-1], block_bytes=10_000_000)
    assert len(plan) == 16
    assert max(len(block.files) for block in plan) < 100
    more = plan_blocks(files, block_bytes=10_000_000)
    assert len(set(more) - set(plan)) == 1


def test_a_key_says_what_a_block_holds() -> None:
    identities, limits = [("a.png", "12"), ("b.png", "34")], DecodeLimits()
    key = block_key(identities, limits)
    others = {
        block_key([("a.png", "12"), ("b.png", "35")], limits),
        block_key([("a.png", "12"), ("c.png", "34")], limits),
        block_key(identities, DecodeLimits(min_side=8)),
    }
    assert len(others | {key}) == 4
    assert key == block_key(list(identities), DecodeLimits())
    assert Block(7, ()).name(key) == f"part-00007-{key[:12]}.parquet"
