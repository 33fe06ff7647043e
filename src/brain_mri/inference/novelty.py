"""Whether a picture is unlike anything that a classifier was trained for.

A network names a class for anything, often with confidence, so confidence alone does not tell. What a picture
makes of the network's features does: the score is the distance to the k-th nearest of the training scans, by
features of unit length (Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEIGHBOUR = 5
LARGEST_REFERENCE = 10_000
_AT_ONCE = 4_000_000  # distances that are held


@dataclass(frozen=True, eq=False)
class Reference:
    """Features of training scans, with which pictures are compared.

    Attributes:
        features: float16 ``(m, d)``, rows of unit length.
    """

    features: NDArray[np.float16]

    def distances(self, features: ArrayLike) -> NDArray[np.float64]:
        """Distance of pictures to their k-th nearest training scan, k being ``NEIGHBOUR``.

        Args:
            features: Shape ``(n, d)``.

        Returns:
            In [0, 2], shape ``(n,)``; large for what is unlike the training scans.

        Raises:
            ValueError: If the features have another width.

        Example:
            >>> reference = make_reference(np.eye(8), seed=1)
            >>> reference.distances([[1.0, 0, 0, 0, 0, 0, 0, 0]]).round(3)
            array([1.414])
        """
        values = _unit(features)
        if values.shape[1] != self.features.shape[1]:
            raise ValueError(f"Expected {self.features.shape[1]} features a picture, got {values.shape[1]}.")
        known = self.features.astype(np.float32)
        place = min(NEIGHBOUR, len(known)) - 1
        step = max(1, _AT_ONCE // len(known))
        nearest = [
            np.partition(values[start : start + step] @ known.T, len(known) - 1 - place, axis=1)[
                :, -1 - place
            ]
            for start in range(0, len(values), step)
        ]
        cosines = np.concatenate(nearest) if nearest else np.empty(0)
        return np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), 0))

    def to_bytes(self) -> bytes:
        """The reference as a NumPy file."""
        buffer = io.BytesIO()
        np.save(buffer, self.features)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Reference:
        """The reference that :meth:`to_bytes` wrote."""
        return cls(np.load(io.BytesIO(content), allow_pickle=False))


def make_reference(features: ArrayLike, seed: int) -> Reference:
    """Keep the features of training scans, at most ``LARGEST_REFERENCE`` of them, drawn by the seed.

    Args:
        features: Shape ``(n, d)``, at least one row.
        seed: Which are kept, where there are more.

    Raises:
        ValueError: If there are none.

    Example:
        >>> make_reference(np.eye(3), seed=1).features.shape
        (3, 3)
    """
    values = _unit(features)
    if not len(values):
        raise ValueError("There are no training scans to compare pictures with.")
    if len(values) > LARGEST_REFERENCE:
        chosen = np.random.default_rng(seed).choice(len(values), LARGEST_REFERENCE, replace=False)
        values = values[np.sort(chosen)]
    return Reference(values.astype(np.float16))


def novelty_threshold(distances: ArrayLike, share: float) -> float:
    """Find the distance that all but a share of genuine scans stay below.

    Args:
        distances: Of validation scans, from :meth:`Reference.distances`.
        share: Of genuine scans that may be refused, in [0, 1).

    Returns:
        The threshold; a picture is out of distribution where its distance is larger.

    Raises:
        ValueError: If the share is not in [0, 1), or there are no distances.

    Example:
        >>> novelty_threshold([0.1, 0.2, 0.3], share=0.0)
        0.3
    """
    if not 0 <= share < 1:
        raise ValueError(f"The share of genuine scans that may be refused is in [0, 1), got {share}.")
    values = np.asarray(distances, dtype=np.float64)
    if not values.size:
        raise ValueError("There are no validation scans to find the threshold with.")
    return float(np.quantile(values, 1 - share))


def _unit(features: ArrayLike) -> NDArray[np.float32]:
    """Rows of unit length; one of zeros stays as it is."""
    values = np.asarray(features, dtype=np.float32)
    if values.ndim != 2:
        raise ValueError(f"Expected features of shape (pictures, features), got {values.shape}.")
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-12), dtype=np.float32)
