"""The next step: enhanced photographs as images to train on, with a label set of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import cv2
import numpy as np

from brain_mri.cohort.classes import ClassSet
from brain_mri.cohort.layout import class_in_path
from brain_mri.datasets.tar_shards import TarShards
from brain_mri.models.shards import ArrayShards

log = logging.getLogger(__name__)


class NoLabelsError(ValueError):
    """No photograph lies in a folder of a class."""


def labelled_photographs(
    shards: TarShards, classes: Sequence[str], image_size: int = 224, kind: str = "enhanced.png"
) -> ArrayShards:
    """Read enhanced photographs whose folders name a class, as training takes them.

    Archives are read in their order, a photograph at a time; what stays is its picture at `image_size`, so a
    hundred thousand of 224×224 take 5 GB. Its `tensorflow()` is a `tf.data.Dataset`.

    Args:
        shards: Enhanced photographs.
        classes: Names of folders, in the order of the labels: for example the grades of a retinopathy.
        image_size: Height and width that pictures are shrunk to, in pixels; longer sides lose their margins.
        kind: Member that is read: "enhanced.png" or "vessels.png".

    Returns:
        uint8 pixels ``(n, image_size, image_size)`` and labels ``(n,)``; ids are the keys.

    Raises:
        NoLabelsError: There is none.

    Example:
        >>> train = labelled_photographs(shards, ("none", "mild", "severe"))  # doctest: +SKIP
        >>> network, history = train_classifier(recipe, train, validation, checkpoints)  # doctest: +SKIP
    """
    known = ClassSet(tuple(classes))
    pixels, labels, keys = [], [], []
    seen = 0
    for key, members in shards.samples():
        seen += 1
        name = class_in_path(key, known)
        if name is None:
            continue
        # As it was written: the limits of scans are none of a photograph.
        picture = cv2.imdecode(np.frombuffer(members[kind], np.uint8), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        side = min(picture.shape)
        top, left = ((length - side) // 2 for length in picture.shape)
        square = picture[top : top + side, left : left + side]
        pixels.append(cv2.resize(square, (image_size, image_size), interpolation=cv2.INTER_AREA))
        labels.append(known.names.index(name))
        keys.append(key)
    if not keys:
        raise NoLabelsError(
            f"None of {seen:,} photographs lies in a folder that is called {', '.join(classes)}: their paths "
            "below the source name their classes."
        )
    log.info("%s of %s photographs have a label.", f"{len(keys):,}", f"{seen:,}")
    return ArrayShards(
        np.stack(pixels).astype(np.uint8), np.array(labels, np.int64), tuple(classes), ids=np.array(keys)
    )
