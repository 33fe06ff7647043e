"""Thumbnails for tests of the cohort: kept by scan id, with a record of what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from brain_mri.cohort.near import THUMBNAIL_BYTES


class Looks:
    """Thumbnails by scan id; `asked` holds the scan ids of every call."""

    def __init__(self, by_id: Mapping[str, bytes]) -> None:
        self.by_id = by_id
        self.asked: list[list[str]] = []

    def __call__(self, scan_ids: Sequence[str]) -> np.ndarray:
        self.asked.append(list(scan_ids))
        content = b"".join(self.by_id[scan] for scan in scan_ids)
        return np.frombuffer(content, np.uint8).reshape(len(scan_ids), THUMBNAIL_BYTES)


def noise(seed: int) -> np.ndarray:
    """A thumbnail like no other: uint8, shape (4096,)."""
    return np.random.default_rng(seed).integers(0, 256, THUMBNAIL_BYTES, dtype=np.uint8)


def faces(count: int, seed: int, side: int) -> list[np.ndarray]:
    """Smooth pictures that nobody would take for each other, nor for a mirror image: uint8 (side, side)."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 6, 6)).astype(np.float32)
    wide = [cv2.resize(look, (side, side), interpolation=cv2.INTER_CUBIC) for look in coarse]
    return [look.clip(0, 255).astype(np.uint8) for look in wide]


def blend(first: np.ndarray, second: np.ndarray, share: float) -> bytes:
    """A thumbnail between two; its correlation with the first passes 0.98 at a share of about 0.169."""
    return ((1 - share) * first + share * second).astype(np.uint8).tobytes()
