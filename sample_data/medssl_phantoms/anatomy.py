"""A synthetic patient: a trunk between lung bases and pelvis, as a list of parts painted one over the other.

The segmentation target is the liver (1) and both kidneys (2). Intensities do not suffice to segment it: spleen, bowel
and vessels look alike, size, shape and position differ between patients, and the kidneys hold two tissues and fat.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medssl_phantoms.shapes import Ellipsoid, Ribs, Shape, Tube, Vector, Wobble, draw_wobble

LABELS = {0: "background", 1: "liver", 2: "kidneys"}
LIVER, KIDNEYS = 1, 2


@dataclass(frozen=True)
class Part:
    """A shape filled with one tissue. Label 0 erases the labels below it."""

    tissue: str
    shape: Shape
    label: int = 0


@dataclass(frozen=True)
class Anatomy:
    """A patient: parts in painting order, the deformation of their space, and half the trunk's width and depth."""

    parts: tuple[Part, ...]
    wobble: Wobble
    half_width_mm: float
    half_depth_mm: float


def stream(*numbers: int) -> np.random.Generator:
    """Random generator determined by these numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(numbers)))


def draw_anatomy(patient: int) -> Anatomy:
    """The patient with this number; the same number gives the same patient."""
    rng = stream(patient, 1)
    width, depth = rng.uniform(112, 132), rng.uniform(80, 98)
    parts = [
        *_wall(rng, width, depth), *_lungs(rng), *_bowel(rng), *_spleen_and_stomach(rng), *_liver(rng), *_kidneys(rng),
        *_spine_and_vessels(rng, depth),
    ]  # fmt: skip
    wobble = draw_wobble(rng, waves=6, wavelength_mm=(70, 170), amount_mm=3.5)
    return Anatomy(tuple(parts), wobble, width, depth)


def _near(rng: np.random.Generator, centre: Vector, spread_mm: float) -> Vector:
    x, y, z = rng.normal(centre, spread_mm)
    return float(x), float(y), float(z)


def _sized(rng: np.random.Generator, radii: Vector, spread: float) -> Vector:
    """Radii scaled together by up to `spread`, and each on its own by a third of it."""
    x, y, z = np.array(radii) * rng.uniform(1 - spread, 1 + spread) * rng.uniform(1 - spread / 3, 1 + spread / 3, 3)
    return float(x), float(y), float(z)


def _wall(rng: np.random.Generator, width: float, depth: float) -> Iterator[Part]:
    fat, muscle = rng.uniform(6, 20), rng.uniform(9, 14)
    yield Part("skin", Ellipsoid((0, 0, 0), (width, depth, 2000), power=2.4))
    yield Part("fat", Ellipsoid((0, 0, 0), (width - 3, depth - 3, 2000), power=2.4))
    inner = Ellipsoid((0, 0, 0), (width - fat, depth - fat * 0.8, 2000), power=2.3)
    yield Part("muscle", inner)
    hoop = Ellipsoid((0, 0, 0), (width - fat - 5, depth - fat * 0.8 - 5, 2000), power=2.3)
    yield Part("fat", Ellipsoid((0, 4, 0), (width - fat - muscle, depth - fat * 0.8 - muscle, 2000), power=2.2))
    yield Part("bone", Ribs(hoop, rng.uniform(3.5, 4.5), rng.uniform(24, 30), rng.uniform(0, 30), rng.uniform(-15, 15)))
    for side in (-1, 1):
        yield Part("muscle", Ellipsoid((side * 34.0, -depth + fat + 22, 0), (26, 14, 2000), power=2.3))


def _lungs(rng: np.random.Generator) -> Iterator[Part]:
    for side in (-1, 1):
        yield Part("lung", Ellipsoid(_near(rng, (side * 54.0, -8, 138), 4), _sized(rng, (44, 58, 58), 0.08)))
    yield Part("heart", Ellipsoid(_near(rng, (-14, 22, 112), 4), _sized(rng, (40, 34, 28), 0.1)))


def _bowel(rng: np.random.Generator) -> Iterator[Part]:
    """Loops of bowel in front of the spine and below the liver, some with gas."""
    for _ in range(int(rng.integers(20, 32))):
        x, y, z = rng.uniform(-78, 78), rng.uniform(-12, 52), rng.uniform(-130, 0)
        along = rng.normal(0, 22, 3)
        stop = (x + along[0], y + along[1] * 0.5, z + along[2] * 0.6)
        radius = rng.uniform(8, 15)
        yield Part("bowel", Tube((x, y, z), stop, radius))
        if rng.random() < 0.25:
            lifted = (x, y + radius * 0.35, z)
            yield Part("gas", Ellipsoid(lifted, (radius * 0.75, radius * 0.5, radius * 0.75)))


def _spleen_and_stomach(rng: np.random.Generator) -> Iterator[Part]:
    yield Part("stomach", Ellipsoid(_near(rng, (-44, 28, 48), 7), _sized(rng, (34, 24, 36), 0.2), rng.uniform(-40, 10)))
    if rng.random() < 0.6:
        yield Part("gas", Ellipsoid(_near(rng, (-44, 42, 52), 5), _sized(rng, (18, 8, 18), 0.25)))
    yield Part("spleen", Ellipsoid(_near(rng, (-76, -32, 42), 5), _sized(rng, (18, 30, 38), 0.2), rng.uniform(10, 40)))


def _liver(rng: np.random.Generator) -> Iterator[Part]:
    x, y, z = _near(rng, (48, 6, 42), 5)
    left_lobe = Ellipsoid((x - 44, y + 22, z + 8), _sized(rng, (44, 22, 26), 0.25), rng.uniform(-15, 15))
    yield Part("liver", left_lobe, LIVER)
    yield Part("liver", Ellipsoid((x, y, z), _sized(rng, (46, 52, 54), 0.14), rng.uniform(-20, 20), power=2.3), LIVER)
    hilum = (x - 26, y - 2, z - 14)
    for _ in range(4):
        x_off, y_off, z_off = rng.uniform((0, -28, -5), (44, 28, 42))
        tip = (hilum[0] + x_off, hilum[1] + y_off, hilum[2] + z_off)
        yield Part("vein", Tube(hilum, tip, rng.uniform(2.2, 4.2)), LIVER)
    if rng.random() < 0.3:
        yield Part("cyst", Ellipsoid(_near(rng, (x, y, z), 14), _sized(rng, (8, 8, 8), 0.4)), LIVER)
    yield Part("bile", Ellipsoid(_near(rng, (x - 26, y + 22, z - 34), 4), _sized(rng, (10, 13, 20), 0.25)))


def _kidneys(rng: np.random.Generator) -> Iterator[Part]:
    for side in (-1, 1):
        x, y, z = _near(rng, (side * 50.0, -38, -28 if side > 0 else -14), 6)
        radii = _sized(rng, (23, 22, 44), 0.16)
        angle = side * rng.uniform(-50, -15)
        yield Part("fat", Ellipsoid((x, y, z), (radii[0] + 6, radii[1] + 6, radii[2] + 7), angle))
        yield Part("kidney cortex", Ellipsoid((x, y, z), radii, angle), KIDNEYS)
        medulla = Ellipsoid((x, y, z), (radii[0] * 0.62, radii[1] * 0.6, radii[2] * 0.72), angle)
        yield Part("kidney medulla", medulla, KIDNEYS)
        sinus = Ellipsoid((x - side * radii[0] * 0.75, y + 6, z), (radii[0] * 0.55, 8, radii[2] * 0.34), angle)
        yield Part("fat", sinus)


def _spine_and_vessels(rng: np.random.Generator, depth: float) -> Iterator[Part]:
    y, gap, phase = -depth * 0.42, rng.uniform(30, 36), rng.uniform(0, 30)
    yield Part("disc", Ellipsoid((0, y, 0), (21, 16, 2000), power=2.6))
    for number in range(-6, 7):
        z = number * gap + phase
        yield Part("bone", Ellipsoid((0, y, z), (22, 17, gap * 0.42), power=3.5))
        yield Part("marrow", Ellipsoid((0, y, z), (18, 13, gap * 0.34), power=3.5))
        yield Part("bone", Tube((0, y - 26, z), (0, y - 44, z - 6), 4.5))
        for side in (-1, 1):
            yield Part("bone", Tube((side * 12.0, y - 18, z), (side * 34.0, y - 24, z), 4.0))
    yield Part("bone", Ellipsoid((0, y - 22, 0), (12, 11, 2000)))
    yield Part("spinal fluid", Ellipsoid((0, y - 21, 0), (8, 7, 2000)))
    yield Part("artery", Tube((-11, y + 25, -300), (-9, y + 25, 300), rng.uniform(8, 10)))
    yield Part("vein", Tube((17, y + 25, -300), (17, y + 28, 300), rng.uniform(8, 11)))
