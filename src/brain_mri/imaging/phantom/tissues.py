"""Grey values of tissues under two kinds of contrast."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Tissues:
    """Grey value of each tissue, 0 (black) to about 1 (white)."""

    fat: float
    bone: float
    muscle: float
    csf: float
    grey: float
    white: float
    vitreous: float
    gland: float
    oedema: float
    rim: float
    necrosis: float
    solid: float
    adenoma: float


# T1 after contrast medium: fat and enhancing tumour bright, fluid dark. T2: fluid bright, white matter dark.
_T1 = Tissues(
    fat=0.80, bone=0.07, muscle=0.36, csf=0.13, grey=0.42, white=0.60, vitreous=0.15, gland=0.66,
    oedema=0.28, rim=0.86, necrosis=0.20, solid=0.95, adenoma=0.90,
)  # fmt: skip
_T2 = Tissues(
    fat=0.62, bone=0.06, muscle=0.20, csf=0.88, grey=0.50, white=0.35, vitreous=0.92, gland=0.48,
    oedema=0.76, rim=0.42, necrosis=0.95, solid=0.80, adenoma=0.78,
)  # fmt: skip


def draw_tissues(rng: np.random.Generator) -> Tissues:
    """Return the grey values of one examination: T1 or T2 at equal odds, each value off by about 5 %."""
    kind = _T1 if rng.random() < 0.5 else _T2
    return Tissues(*(getattr(kind, entry.name) * rng.normal(1, 0.05) for entry in fields(Tissues)))
