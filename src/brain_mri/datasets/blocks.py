"""Which files are packed together, and under which name: decided by the files, and by nothing else.

A file's block hangs on its own size and path, not on the files that come before it. So where a source gains
or loses some files, only the blocks that these fall into are others than before.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from brain_mri.imaging.decode import DecodeLimits

BLOCK_BYTES = 128 * 2**20
_FEWEST_BLOCKS = 8  # so that all cores of a usual machine have work on a small set
_FORMAT = 3
"""Part of every key. Raise it when a block of the same files is stored otherwise than before."""

_DRAWN_BITS = 64


@dataclass(frozen=True)
class Block:
    """The files that one task packs.

    Attributes:
        number: The bucket that the files were drawn into; blocks that share one sort by their key.
        files: Path in the source, and URL to read it from.
        known: Ids of scans that were packed before and have the length of one of the files: a file with one
            of these ids is not packed again.
    """

    number: int
    files: tuple[tuple[str, str], ...]
    known: frozenset[str] = frozenset()

    def name(self, key: str) -> str:
        """File name of the block and of its inspections.

        Example:
            >>> Block(3, ()).name("9f86d081884c7d65")
            'part-00003-9f86d081884c.parquet'
        """
        return f"part-{self.number:05d}-{key[:12]}.parquet"


def block_key(
    identities: Sequence[tuple[str, str]], limits: DecodeLimits, known: Collection[str] = ()
) -> str:
    """What a block holds, as hexadecimal sha256: equal keys, equal blocks.

    Args:
        identities: Path and sha256 of every file of the block, in its order; where a file has no content that
            is kept, the reason instead.
        limits: What is refused.
        known: Those that were packed before; a block does not hold them.
    """
    left_out = sorted({identity for _, identity in identities if identity in known})
    return hashlib.sha256(json.dumps([_FORMAT, asdict(limits), identities, left_out]).encode()).hexdigest()


def plan_blocks(
    files: pd.DataFrame, block_bytes: int = BLOCK_BYTES, known: pd.DataFrame | None = None
) -> tuple[Block, ...]:
    """Cut a list of files into blocks of about equal bytes.

    The sha256 of a file's size says which of a power of two of buckets it falls into, so files of one size
    stay together: exact copies have one size, and nearly all of them meet in one task. Only where the files
    of one size are more than a block (uncompressed images) are they cut further, by the sha256 of their path.
    Within a block the order is drawn from sizes and paths likewise: classes differ in both, and every block,
    and so every row group that training reads, should hold all of them. The plan depends on the files alone,
    not on the machine; how many buckets there are changes only when the bytes of all files double.

    Args:
        files: Columns `path`, `url`, `bytes`.
        block_bytes: Bytes of files that make a block, at most.
        known: Columns `scan_id`, `bytes` of the scans that were packed before.

    Returns:
        The blocks, none of them empty. Every file is in one of them.

    Example:
        >>> files = pd.DataFrame({"path": ["a.png"], "url": ["/scans/a.png"], "bytes": [1200]})
        >>> plan_blocks(files)
        (Block(number=0, files=(('a.png', '/scans/a.png'),)),)
    """
    total = int(files["bytes"].sum())
    buckets = _power_of_two(max(total / block_bytes, _FEWEST_BLOCKS))
    largest = min(block_bytes, max(math.ceil(total / buckets), 2**20))
    drawn = files.assign(
        by_size=files["bytes"].map(_draw),
        by_path=files["path"].map(_draw),
        of_this_size=files.groupby("bytes")["bytes"].transform("sum"),
    ).sort_values(["by_size", "by_path"])
    blocks: dict[tuple[int, int, int], list[tuple[str, str]]] = {}
    of_size = {} if known is None else known.groupby("bytes")["scan_id"].agg(frozenset).to_dict()
    known_in: dict[tuple[int, int, int], set[str]] = {}
    for path, url, size, by_size, by_path, of_this_size in drawn[
        ["path", "url", "bytes", "by_size", "by_path", "of_this_size"]
    ].itertuples(index=False):
        pieces = _power_of_two(of_this_size / largest)
        group = (size, _bucket(by_path, pieces)) if pieces > 1 else (-1, 0)
        place = (_bucket(by_size, buckets), *group)
        blocks.setdefault(place, []).append((path, url))
        known_in.setdefault(place, set()).update(of_size.get(size, ()))
    return tuple(
        Block(place[0], tuple(block), frozenset(known_in[place])) for place, block in sorted(blocks.items())
    )


def _power_of_two(number: float) -> int:
    """The smallest power of two that is not below a number."""
    return 1 << (max(math.ceil(number), 1) - 1).bit_length()


def _draw(value: object) -> int:
    """A place in an order that has nothing to do with the value: a number of `_DRAWN_BITS` bits."""
    return int.from_bytes(hashlib.sha256(str(value).encode()).digest()[: _DRAWN_BITS // 8])


def _bucket(drawn: int, count: int) -> int:
    """Which of `count` equal ranges a drawn number lies in."""
    return drawn * count >> _DRAWN_BITS
