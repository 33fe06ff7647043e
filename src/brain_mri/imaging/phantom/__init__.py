"""Synthetic brain-MRI slices: drawn from a seed, never taken from a patient.

Example:
    >>> from brain_mri.imaging.phantom import draw_phantom
    >>> phantom = draw_phantom("meningioma", seed=7)
    >>> phantom.pixels.shape, phantom.pixels.dtype, bool(phantom.lesion_mask.any())
    ((256, 256), dtype('uint8'), True)
"""

from brain_mri.imaging.phantom.draw import PHANTOM_CLASSES, Phantom, draw_phantom
from brain_mri.imaging.phantom.folder import (
    DEFAULT_PHANTOM_IMAGES,
    MARKER_NAME,
    PhantomSummary,
    plan_files,
    write_phantom_folder,
)

__all__ = [
    "DEFAULT_PHANTOM_IMAGES",
    "MARKER_NAME",
    "PHANTOM_CLASSES",
    "Phantom",
    "PhantomSummary",
    "draw_phantom",
    "plan_files",
    "write_phantom_folder",
]
