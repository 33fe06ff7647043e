"""What a slice of a head without a lesion consists of, for three orientations and several levels.

Proportions follow a radiological atlas by eye: enough for a network to have something to learn, nothing to
measure on. Names of tissues are the fields of `Tissues` in `draw.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from brain_mri.imaging.phantom.pen import Points, oval

Shape = tuple[Points, str]

_BROW_TO_CHIN = (
    *((-0.66, -0.10), (-0.76, 0.14), (-0.94, 0.37), (-0.80, 0.44)),
    *((-0.84, 0.54), (-0.79, 0.62), (-0.83, 0.76), (-0.66, 0.88)),
)
_NECK = ((-0.34, 0.90), (-0.22, 1.5), (0.56, 1.5), (0.60, 0.55), (0.62, 0.25), (0.0, -0.1))
_PROFILE = (*_BROW_TO_CHIN, *_NECK)
_STEM = (  # midbrain, pons, medulla and the cord down to the picture's edge
    *((-0.02, 0.0), (0.10, -0.06), (0.20, 0.06), (0.21, 0.25), (0.17, 0.45)),
    *((0.24, 1.5), (0.13, 1.5), (0.06, 0.50), (-0.05, 0.33), (-0.05, 0.2)),
)


@dataclass
class Anatomy:
    """Shapes of one slice in head coordinates, in the order in which they are painted.

    Attributes:
        brain: Outlines whose union is the brain; the skull follows their convex hull.
        face: Shapes outside the skull, each with its tissue; skin covers them.
        inside: Shapes painted over the cortex, each with its tissue.
        lines: Fissures: points, width, tissue.
        folia: Outlines with the fine folds of the cerebellum.
        sella: Where the pituitary gland is, or None where the slice misses it.
        midline: The falx as an open line, or None where the slice runs along it.
    """

    brain: list[Points]
    face: list[Shape] = field(default_factory=list)
    inside: list[Shape] = field(default_factory=list)
    lines: list[tuple[Points, float, str]] = field(default_factory=list)
    folia: list[Points] = field(default_factory=list)
    sella: tuple[float, float] | None = None
    midline: Points | None = None


def _wavy(rng: np.random.Generator, start: tuple[float, float], end: tuple[float, float]) -> Points:
    """Return a slightly wavy line of 12 points from `start` to `end`."""
    along = np.linspace(0, 1, 12)[:, None]
    points = np.array(start) * (1 - along) + np.array(end) * along
    return np.asarray(points + rng.normal(0, 0.008, points.shape))


def _pair(
    rng: np.random.Generator, centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0
) -> list[Points]:
    """Return an oval and its mirror image on the other side, each with its own small irregularities."""
    x, y = centre
    return [
        oval(rng, (side * x, y), radii, tilt=side * tilt, roughness=0.05, harmonics=4) for side in (-1, 1)
    ]


def axial(rng: np.random.Generator, *, with_sella: bool) -> Anatomy:
    """Return a slice seen from below: base with eyes and cerebellum, ventricles, or near the vertex."""
    if with_sella or rng.random() < 0.35:
        return _axial_base(rng)
    width, length = rng.uniform(0.62, 0.72), rng.uniform(0.80, 0.88)
    outline = oval(rng, (0, 0), (width, length), roughness=0.015)
    outline[:, 0] *= 1 + rng.uniform(0.02, 0.14) * outline[:, 1]
    anatomy = Anatomy([outline], midline=_wavy(rng, (0, -length), (0, length)))
    assert anatomy.midline is not None
    anatomy.lines = [(anatomy.midline, 0.022, "csf")]
    if rng.random() < 0.4:  # near the vertex: white matter and the fissure only
        return anatomy
    spread, swell = rng.uniform(0.08, 0.12), rng.uniform(0.6, 1.7)
    anatomy.inside = [
        *[(shape, "white") for shape in [oval(rng, (0, 0), (0.3, 0.42))]],
        *[(shape, "grey") for shape in _pair(rng, (0.20, 0.08), (0.11, 0.15), 0.3)],
        *[(shape, "grey") for shape in _pair(rng, (0.26, -0.14), (0.07, 0.17), -0.25)],
        *[(shape, "csf") for shape in _pair(rng, (spread, -0.24), (0.045 * swell, 0.15), -0.35)],
        *[(shape, "csf") for shape in _pair(rng, (spread + 0.09, 0.33), (0.05 * swell, 0.17), -0.35)],
        (oval(rng, (0, 0.03), (0.014 * swell, 0.09)), "csf"),
    ]
    return anatomy


def _axial_base(rng: np.random.Generator) -> Anatomy:
    """Return a slice at the level of the eyes, the sella and the cerebellum."""
    cerebellum = oval(rng, (0, rng.uniform(0.44, 0.52)), (rng.uniform(0.50, 0.58), 0.36), roughness=0.03)
    temporal = _pair(rng, (0.40, -0.04), (0.27, 0.36), -0.2)
    frontal = oval(rng, (0, -0.26), (rng.uniform(0.3, 0.42), 0.27), roughness=0.03)
    sella = (rng.normal(0, 0.01), rng.uniform(-0.16, -0.08))
    anatomy = Anatomy([cerebellum, *temporal, frontal, oval(rng, (0, 0.1), (0.3, 0.3))], sella=sella)
    anatomy.folia = [cerebellum]
    anatomy.face = [
        (oval(rng, (0, -0.42), (0.62, 0.44)), "muscle"),
        *[(shape, "fat") for shape in _pair(rng, (0.31, -0.60), (0.19, 0.22))],
        *[(shape, "vitreous") for shape in _pair(rng, (0.32, -0.70), (0.12, 0.12))],
        (oval(rng, (0, -0.72), (0.10, 0.2), roughness=0.08), "bone"),
    ]
    star = oval(rng, sella, (0.17, 0.13), roughness=0.13, harmonics=6)
    anatomy.inside = [
        *[(shape, "bone") for shape in _pair(rng, (0.40, 0.24), (0.22, 0.035), -0.45)],
        (star, "csf"),
        (oval(rng, (0, 0.11), (0.17, 0.14), roughness=0.04), "white"),
        (oval(rng, (0, 0.28), (rng.uniform(0.04, 0.09), 0.05)), "csf"),
        (oval(rng, sella, (0.035, 0.03)), "gland"),
    ]
    anatomy.lines = [(_wavy(rng, (0, -0.52), (0, -0.2)), 0.022, "csf")]
    return anatomy


def coronal(rng: np.random.Generator, *, with_sella: bool) -> Anatomy:
    """Return a slice seen from the front: through the sella, or further back through the cerebellum."""
    width, top = rng.uniform(0.62, 0.70), rng.uniform(0.52, 0.60)
    cerebrum = oval(rng, (0, -0.28), (width, top), roughness=0.015)
    lobes = _pair(rng, (0.40, 0.12), (0.25, 0.23), -0.3)
    middle = oval(rng, (0, 0.05), (0.3, 0.2))
    anatomy = Anatomy([cerebrum, *lobes, middle], midline=_wavy(rng, (0, -0.28 - top), (0, -0.30)))
    assert anatomy.midline is not None
    swell = rng.uniform(0.6, 1.6)
    anatomy.face = [
        (oval(rng, (0, 0.72), (rng.uniform(0.46, 0.6), 0.72), roughness=0.03), "muscle"),
        *[(shape, "fat") for shape in _pair(rng, (0.34, 0.72), (0.07, 0.26), 0.1)],
        *[(shape, "bone") for shape in _pair(rng, (0.17, 0.56), (0.11, 0.09), 0.2)],
        (oval(rng, (0, 0.82), (0.22, 0.10), roughness=0.08), "fat"),
    ]
    anatomy.lines = [
        (anatomy.midline, 0.022, "csf"),
        *[(_wavy(rng, (side * 0.66, 0.02), (side * 0.32, -0.08)), 0.03, "csf") for side in (-1, 1)],
    ]
    anatomy.inside = [
        *[(shape, "grey") for shape in _pair(rng, (0.2, -0.08), (0.12, 0.1), 0.3)],
        (oval(rng, (0, -0.33), (0.24, 0.04)), "white"),
        *[(shape, "csf") for shape in _pair(rng, (0.09, -0.25), (0.04 * swell, 0.09), 0.7)],
        (oval(rng, (0, -0.07), (0.014 * swell, 0.09)), "csf"),
    ]
    if with_sella or rng.random() < 0.5:
        anatomy.sella = (rng.normal(0, 0.01), rng.uniform(0.20, 0.26))
        anatomy.inside += [
            (oval(rng, (0, anatomy.sella[1] - 0.03), (0.15, 0.10), roughness=0.08), "csf"),
            (oval(rng, anatomy.sella, (0.05, 0.028)), "gland"),
        ]
        return anatomy
    cerebellum = oval(rng, (0, 0.30), (rng.uniform(0.42, 0.5), 0.24), roughness=0.04)
    anatomy.brain.append(cerebellum)
    anatomy.folia = [cerebellum]
    anatomy.lines += [(_wavy(rng, (side * 0.5, 0.22), (0, 0.06)), 0.025, "csf") for side in (-1, 1)]
    anatomy.inside.append((oval(rng, (0, 0.38), (0.12, 0.16)), "white"))
    return anatomy


def sagittal(rng: np.random.Generator, *, with_sella: bool) -> Anatomy:
    """Return a slice seen from the side, nose to the left: along the midline, or through one hemisphere."""
    midline = with_sella or rng.random() < 0.55
    length, height = rng.uniform(0.74, 0.82), rng.uniform(0.52, 0.60)
    cerebrum = oval(rng, (0.05, -0.26), (length, height), roughness=0.02)
    cerebellum = oval(rng, (0.42, 0.28), (rng.uniform(0.25, 0.31), 0.22), tilt=0.3, roughness=0.04)
    profile = np.array(_PROFILE)
    face = [
        (profile + rng.normal(0, 0.015, profile.shape), "muscle"),
        (oval(rng, (-0.48, 0.36), (0.24, 0.09), tilt=0.1, roughness=0.1), "bone"),
        (oval(rng, (-0.42, 0.62), (0.24, 0.10), tilt=0.2, roughness=0.08), "fat"),
        (oval(rng, (-0.09, 0.66), (0.03, 0.26), roughness=0.05), "bone"),
        *[(oval(rng, (0.02, 0.62 + 0.19 * row), (0.06, 0.07)), "grey") for row in range(4)],
    ]
    if not midline:
        lobe = oval(rng, (-0.12, 0.10), (0.40, 0.24), tilt=0.15, roughness=0.03)
        anatomy = Anatomy([cerebrum, cerebellum, lobe], face, folia=[cerebellum])
        anatomy.face.append((oval(rng, (-0.60, 0.20), (0.11, 0.10)), "vitreous"))
        anatomy.lines = [(_wavy(rng, (-0.52, -0.02), (0.25, -0.16)), 0.03, "csf")]
        return anatomy
    stem = np.array(_STEM)
    anatomy = Anatomy([cerebrum, cerebellum], face, folia=[cerebellum])
    anatomy.sella = (rng.uniform(-0.22, -0.16), rng.uniform(0.17, 0.23))
    arc = np.linspace(np.pi * 1.05, np.pi * 2.0, 20)
    callosum = np.stack([0.02 + 0.33 * np.cos(arc), -0.16 + 0.2 * np.sin(arc)], axis=1)
    below = callosum * [0.86, 0.8]
    anatomy.inside = [
        (np.concatenate([below, below[::-1] * [1.0, 0.55] + [0.0, -0.05]]), "csf"),
        (oval(rng, (0.06, -0.12), (0.14, 0.08)), "grey"),
        (oval(rng, (-0.17, 0.10), (0.13, 0.09), roughness=0.1), "csf"),
        (stem, "white"),
        (oval(rng, (0.21, 0.24), (0.04, 0.09)), "csf"),
        (oval(rng, anatomy.sella, (0.045, 0.03)), "gland"),
    ]
    anatomy.lines = [
        (np.concatenate([stem, stem[:1]]), 0.05, "csf"),
        (callosum, rng.uniform(0.05, 0.08), "white"),
        (_wavy(rng, (0.22, 0.04), (0.72, 0.06)), 0.02, "csf"),
    ]
    return anatomy
