"""A folder of synthetic scans that looks like a downloaded one, with the faults that real folders have."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from brain_mri.imaging.inspect import difference_hash
from brain_mri.imaging.phantom.draw import PHANTOM_CLASSES, draw_phantom

DEFAULT_PHANTOM_IMAGES = 2000
MARKER_NAME = "PHANTOM.json"

_VERSION = 1  # raise it whenever a change alters the bytes, so that old folders are drawn anew
_UNFINISHED_NAME = "PHANTOM.json.unfinished"
_CLASS_SHARES = (0.26, 0.20, 0.30, 0.24)  # of glioma, meningioma, notumor, pituitary: uneven on purpose
_EXACT_COPIES, _NEAR_COPIES, _DAMAGED = 0.02, 0.02, 0.015
_DAMAGES = ("truncated", "empty", "text", "blank", "tiny")
_SIDES = (192, 225, 256, 320, 384)
_POOL_FROM = 300  # fewer images are drawn sooner by one process than a pool starts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedFile:
    """One file to write.

    Attributes:
        index: Its number in the folder.
        label: Class whose folder it goes to.
        kind: "drawn", "exact_copy", "near_copy", or one of the damages.
        original: Number of the file whose picture it shows; its own unless it is a copy.
    """

    index: int
    label: str
    kind: str
    original: int

    @property
    def name(self) -> str:
        """Path below the folder, such as `glioma/phantom-gl_00012.jpg`."""
        return f"{self.label}/phantom-{self.label[:2]}_{self.index:05d}.jpg"


@dataclass(frozen=True)
class PhantomSummary:
    """What a phantom folder holds.

    Attributes:
        images: Files in all, copies and damaged ones included.
        seed: Seed that they were drawn from.
        classes: Files per class.
        exact_copies: Files that equal another byte for byte.
        near_copies: Files that show another's picture, encoded or resized anew.
        damaged: Files per kind of damage.
        synthetic: Always True.
        version: Of the generator.
    """

    images: int
    seed: int
    classes: dict[str, int]
    exact_copies: int
    near_copies: int
    damaged: dict[str, int]
    synthetic: bool = field(default=True)
    version: int = _VERSION


def plan_files(images: int, seed: int) -> list[PlannedFile]:
    """Return what each of `images` files will be, without drawing any.

    Raises:
        ValueError: If `images` is below 8, too few to hold every class twice.
    """
    if images < 8:
        raise ValueError(f"A phantom folder needs at least 8 images, but {images} were asked for.")
    rng = np.random.default_rng(np.random.SeedSequence([seed]))
    bounds = np.rint(np.cumsum(_CLASS_SHARES) * images)
    labels = [PHANTOM_CLASSES[int(np.searchsorted(bounds, index, side="right"))] for index in range(images)]
    exact, near, damaged = (round(share * images) for share in (_EXACT_COPIES, _NEAR_COPIES, _DAMAGED))
    odd = rng.permutation(images)[: exact + near + damaged]
    kinds = ["drawn"] * images
    for place, index in enumerate(odd):
        if place < exact + near:
            kinds[index] = "exact_copy" if place < exact else "near_copy"
        else:
            kinds[index] = _DAMAGES[(place - exact - near) % len(_DAMAGES)]
    drawn = {
        label: [index for index in range(images) if labels[index] == label and kinds[index] == "drawn"]
        for label in PHANTOM_CLASSES
    }
    plan = []
    for index, (label, kind) in enumerate(zip(labels, kinds, strict=True)):
        original = index
        if kind in ("exact_copy", "near_copy"):
            original = drawn[label][rng.integers(len(drawn[label]))]
        plan.append(PlannedFile(index, label, kind, original))
    return plan


def write_phantom_folder(
    folder: Path, images: int = DEFAULT_PHANTOM_IMAGES, seed: int = 0, *, processes: int | None = None
) -> PhantomSummary:
    """Write a folder of synthetic scans: `<folder>/<class>/*.jpg`, and `PHANTOM.json` when all are there.

    A folder that already holds the same images is left as it is; one that holds others, or was left
    half-written, is drawn anew. The bytes depend on `images` and `seed` alone, not on `processes`.

    Args:
        folder: Where to write; made if absent.
        images: Number of files, 8 or more, copies and damaged files included.
        seed: Any integer from 0 up.
        processes: How many draw at once; all cores if None and there are many images.

    Returns:
        What the folder holds.

    Raises:
        FileExistsError: If the folder holds files that are no phantoms: nobody's data is written over.
        ValueError: If `images` is too small.

    Example:
        >>> summary = write_phantom_folder(Path("data/01_raw/phantom"), images=100, seed=1)  # doctest: +SKIP
        >>> summary.near_copies  # doctest: +SKIP
        2
    """
    plan = plan_files(images, seed)
    summary = _summarise(plan, seed)
    folder = Path(folder)
    if _holds(folder, summary):
        logger.info("The phantom folder %s already holds these %d synthetic scans.", folder, images)
        return summary
    _clear(folder)
    unfinished = folder / _UNFINISHED_NAME
    folder.mkdir(parents=True, exist_ok=True)
    unfinished.write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    for label in PHANTOM_CLASSES:
        (folder / label).mkdir(exist_ok=True)
    _write_all(folder, plan, seed, processes)
    unfinished.replace(folder / MARKER_NAME)
    logger.info("Drew %d synthetic scans into %s.", images, folder)
    return summary


def _summarise(plan: list[PlannedFile], seed: int) -> PhantomSummary:
    kinds = Counter(planned.kind for planned in plan)
    classes = Counter(planned.label for planned in plan)
    return PhantomSummary(
        images=len(plan),
        seed=seed,
        classes={label: classes[label] for label in PHANTOM_CLASSES},
        exact_copies=kinds["exact_copy"],
        near_copies=kinds["near_copy"],
        damaged={damage: kinds[damage] for damage in _DAMAGES},
    )


def _files_of(folder: Path) -> Iterator[Path]:
    for label in PHANTOM_CLASSES:
        yield from (folder / label).glob("phantom-*.jpg")


def _holds(folder: Path, summary: PhantomSummary) -> bool:
    """Tell whether the folder is finished and was drawn with these parameters by this generator."""
    try:
        found = json.loads((folder / MARKER_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == asdict(summary)) and sum(1 for _ in _files_of(folder)) == summary.images


def _clear(folder: Path) -> None:
    """Remove phantoms from an earlier run; refuse a folder that is not ours."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    markers = [folder / MARKER_NAME, folder / _UNFINISHED_NAME]
    if not any(marker.exists() for marker in markers):
        raise FileExistsError(
            f"{folder} holds files but no {MARKER_NAME}, so they may be somebody's data. "
            "Name an empty folder for the phantoms, or move these files elsewhere."
        )
    (folder / _UNFINISHED_NAME).touch()
    (folder / MARKER_NAME).unlink(missing_ok=True)
    for path in list(_files_of(folder)):
        path.unlink()


def _write_all(folder: Path, plan: list[PlannedFile], seed: int, processes: int | None) -> None:
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = processes if len(plan) >= _POOL_FROM else 1
    if processes == 1:
        for planned in plan:
            _write_one(folder, seed, planned)
        return
    # Spawned, not forked: a forked child of a process with a JVM or TensorFlow inside may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        for _ in pool.map(_write_one, repeat(folder), repeat(seed), plan, chunksize=32):
            pass


def _write_one(folder: Path, seed: int, planned: PlannedFile) -> None:
    (folder / planned.name).write_bytes(encode_file(planned, seed))


def encode_file(planned: PlannedFile, seed: int) -> bytes:
    """Return the content of one planned file."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, planned.original]))
    if planned.kind == "text":
        return f"This is no image. File {planned.index}.\n".encode()
    if planned.kind == "empty":
        return b""
    if planned.kind == "blank":
        return _jpeg(np.full((256, 256), 4 * (planned.index % 8), np.uint8), 90)
    if planned.kind == "tiny":
        return _jpeg(rng.integers(0, 256, (5, 5), dtype=np.uint8), 90)
    pixels = draw_phantom(planned.label, int(rng.integers(2**62))).pixels
    height, width = (int(side) for side in rng.choice(_SIDES) * rng.uniform(0.85, 1.0, 2))
    pixels = _resize(pixels, height, width)
    if rng.random() < 0.55:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    content = _jpeg(pixels, int(rng.integers(75, 96)))
    if planned.kind == "near_copy":
        return _near_copy(content, rng.uniform(1.02, 1.15))
    return content[: len(content) * 2 // 5] if planned.kind == "truncated" else content


def _near_copy(content: bytes, factor: float) -> bytes:
    """Return a JPEG enlarged by `factor` and encoded anew; the latter only where its dHash would change."""
    grey, pixels = _decode(content, cv2.IMREAD_GRAYSCALE), _decode(content, cv2.IMREAD_UNCHANGED)
    height, width = grey.shape
    copy = _jpeg(_resize(pixels, round(height * factor), round(width * factor)), 92)
    copied = difference_hash(_decode(copy, cv2.IMREAD_GRAYSCALE))
    distance = (int(difference_hash(grey), 16) ^ int(copied, 16)).bit_count()
    return copy if distance <= 2 else _jpeg(pixels, 97)


def _decode(content: bytes, flag: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), flag), dtype=np.uint8)


def _resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), dtype=np.uint8)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    done, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return content.tobytes()
