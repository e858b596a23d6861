"""Solid shapes in RAS millimetres, each with the distance of any point to its surface.

Shapes are continuous, so that the same patient can be scanned on any grid. Distances are negative inside. Those of
ellipsoids are first-order estimates (value over gradient of the implicit function), exact on the surface, which is
where they are used.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """Ellipsoid, or with `power` above 2 a rounded box; turned by `angle_deg` about the S axis."""

    centre_mm: Vector
    radii_mm: Vector
    angle_deg: float = 0.0
    power: float = 2.0

    def distance_mm(self, points_ras_mm: Points) -> Points:
        """(...,) distance of each of (..., 3) points to the surface, negative inside."""
        turn = np.deg2rad(self.angle_deg)
        rotation = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        radii = np.array(self.radii_mm)
        local = np.abs((points_ras_mm - np.array(self.centre_mm)) @ rotation.T) / radii
        total = np.maximum((local**self.power).sum(axis=-1), 1e-9)
        level = total ** (1 / self.power)
        slope = np.linalg.norm((local ** (self.power - 1)) / radii, axis=-1) * total ** (1 / self.power - 1)
        return np.asarray((level - 1) / np.maximum(slope, 1e-9))

    def box_mm(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner of a box around the shape."""
        x, y, z = self.centre_mm
        across = float(np.hypot(*self.radii_mm[:2])) if self.angle_deg else max(self.radii_mm[:2])
        return (x - across, y - across, z - self.radii_mm[2]), (x + across, y + across, z + self.radii_mm[2])


@dataclass(frozen=True)
class Tube:
    """Straight tube with round ends."""

    start_mm: Vector
    stop_mm: Vector
    radius_mm: float

    def distance_mm(self, points_ras_mm: Points) -> Points:
        """(...,) distance of each of (..., 3) points to the surface, negative inside."""
        start, along = np.array(self.start_mm), np.array(self.stop_mm) - np.array(self.start_mm)
        fraction = np.clip((points_ras_mm - start) @ along / (along @ along), 0, 1)
        return np.asarray(np.linalg.norm(points_ras_mm - start - fraction[..., None] * along, axis=-1) - self.radius_mm)

    def box_mm(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner of a box around the shape."""
        ends, radius = np.array([self.start_mm, self.stop_mm]), self.radius_mm
        low, high = ends.min(axis=0) - radius, ends.max(axis=0) + radius
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


@dataclass(frozen=True)
class Ribs:
    """Hoops in the wall of a trunk: `gap_mm` apart along S, higher behind than in front, ending above `lowest_mm`."""

    trunk: Ellipsoid
    radius_mm: float
    gap_mm: float
    phase_mm: float
    lowest_mm: float

    def distance_mm(self, points_ras_mm: Points) -> Points:
        """(...,) distance of each of (..., 3) points to the surface, negative inside."""
        height = points_ras_mm[..., 2] + 0.45 * points_ras_mm[..., 1] + self.phase_mm
        to_hoop = np.abs((height + self.gap_mm / 2) % self.gap_mm - self.gap_mm / 2)
        distance = np.hypot(to_hoop, self.trunk.distance_mm(points_ras_mm)) - self.radius_mm
        return np.asarray(np.maximum(distance, self.lowest_mm - points_ras_mm[..., 2]))

    def box_mm(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner of a box around the shape."""
        (x, y, _), (x_high, y_high, z_high) = self.trunk.box_mm()
        r = self.radius_mm
        return (x - r, y - r, self.lowest_mm - r), (x_high + r, y_high + r, z_high + r)


Shape = Ellipsoid | Tube | Ribs


@dataclass(frozen=True)
class Wobble:
    """A smooth displacement of space, a sum of N plane waves, so that no organ is an exact ellipsoid.

    Attributes:
        directions: (N, 3) wave vectors in radians per mm.
        amounts_mm: (N, 3) displacements.
        phases: (N,) in radians.
    """

    directions: Points
    amounts_mm: Points
    phases: Points

    def __call__(self, points_ras_mm: Points) -> Points:
        """(..., 3) displaced points."""
        return points_ras_mm + np.sin(points_ras_mm @ self.directions.T + self.phases) @ self.amounts_mm


def draw_wobble(
    rng: np.random.Generator, *, waves: int, wavelength_mm: tuple[float, float], amount_mm: float
) -> Wobble:
    """A wobble of `waves` random waves, each of up to about `amount_mm`."""
    directions = rng.standard_normal((waves, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions *= 2 * np.pi / rng.uniform(*wavelength_mm, (waves, 1))
    return Wobble(directions, rng.uniform(-amount_mm, amount_mm, (waves, 3)), rng.uniform(0, 2 * np.pi, waves))
