"""CT-like and MR-like scans of a synthetic patient on any grid, with the label on the same grid.

CT: HU, reconstruction circle, patient table, correlated noise. MR: arbitrary units, T1- or T2-like contrast, coil
shading, a faint ghost along the phase direction, Rician noise. Both: partial volume at every edge and tissues whose
intensities differ per patient.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.geometry import Volume
from medssl_phantoms.anatomy import Anatomy, draw_anatomy, stream
from medssl_phantoms.shapes import Ellipsoid, Points, draw_wobble
from medssl_phantoms.tissues import CT_HU, MR_SIGNAL

Array = npt.NDArray[np.float64]

AIR_HU = -1000.0
OUTSIDE_CIRCLE_HU = -1024.0


@dataclass(frozen=True)
class Grid:
    """Geometry of a scan.

    Attributes:
        shape: (X, Y, Z) in voxels.
        spacing_mm: voxel edges along the array axes.
        axes: direction of each array axis, R or L, A or P, S or I, as nibabel's axis codes.
        rotation_deg: additional rotation about the R, A and S axis, which makes the scan oblique.
        centre_ras_mm: middle of the grid; the middle of the trunk is 0, 0, 0.
    """

    shape: tuple[int, int, int] = (48, 40, 36)
    spacing_mm: tuple[float, float, float] = (6.0, 5.5, 6.0)
    axes: str = "LPS"
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    centre_ras_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def affine_ras_mm(self) -> Array:
        """(4, 4) voxel index to RAS mm."""
        columns = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
        directions = _rotation(self.rotation_deg) @ np.array([columns[letter] for letter in self.axes], dtype=float).T
        affine = np.eye(4)
        affine[:3, :3] = directions * np.array(self.spacing_mm)
        affine[:3, 3] = np.array(self.centre_ras_mm) - affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine

    def points_ras_mm(self) -> Points:
        """(X, Y, Z, 3) positions of the voxel centres."""
        indices = np.stack(np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij"), axis=-1)
        return np.asarray(indices @ self.affine_ras_mm[:3, :3].T + self.affine_ras_mm[:3, 3])


def ct_phantom(patient: int, *, scan: int = 0, grid: Grid | None = None) -> tuple[Volume, Volume]:
    """CT-like scan (int16, HU) of the patient with this number, and its label (uint8); each `scan` has new noise."""
    grid, rng = grid or Grid(), stream(patient, 2, scan)
    anatomy, points = draw_anatomy(patient), grid.points_ras_mm()
    values = _intensities(stream(patient, 3), CT_HU)
    image, label, inside = _render(anatomy, points, values, background=AIR_HU, grid=grid)
    image += inside * 9 * _smooth_noise(rng, grid, 7.0)
    image = np.maximum(image, _table(anatomy, points, grid))
    image += rng.uniform(9, 20) * _smooth_noise(rng, grid, 3.0)
    edges_mm = np.multiply(grid.shape, grid.spacing_mm)
    circle_mm = edges_mm[edges_mm >= 2 * anatomy.half_width_mm].min() / 2
    image[np.hypot(points[..., 0], points[..., 1]) > max(circle_mm, anatomy.half_width_mm + 8)] = OUTSIDE_CIRCLE_HU
    return _volumes(np.clip(image, OUTSIDE_CIRCLE_HU, 3071), label, grid)


def mr_phantom(patient: int, *, scan: int = 0, grid: Grid | None = None, contrast: str = "T1") -> tuple[Volume, Volume]:
    """MR-like scan (int16, arbitrary units) of a patient, and its label (uint8); contrast: "T1" or "T2"."""
    grid, rng = grid or Grid(), stream(patient, 4, scan, sorted(MR_SIGNAL).index(contrast))
    anatomy, points = draw_anatomy(patient), grid.points_ras_mm()
    signal = _intensities(stream(patient, 5, sorted(MR_SIGNAL).index(contrast)), MR_SIGNAL[contrast])
    image, label, inside = _render(anatomy, points, signal, background=0.0, grid=grid)
    image *= 1 + inside * 0.06 * _smooth_noise(rng, grid, 8.0)
    image *= _shading(rng, points)
    image += 0.035 * np.roll(image, grid.shape[1] // 2, axis=1)
    noise = rng.uniform(0.02, 0.045)
    image = np.hypot(image + noise * rng.standard_normal(grid.shape), noise * rng.standard_normal(grid.shape))
    return _volumes(np.clip(image * rng.uniform(350, 1400), 0, 32000), label, grid)


def _render(
    anatomy: Anatomy, points: Points, value: Mapping[str, float], *, background: float, grid: Grid
) -> tuple[Array, npt.NDArray[np.uint8], Array]:
    """Image, label, and fraction of each voxel inside the patient. Edges are ramps of one voxel."""
    image, label, inside = np.full(grid.shape, background), np.zeros(grid.shape, np.uint8), np.zeros(grid.shape)
    ramp_mm, warped = float(np.mean(grid.spacing_mm)), anatomy.wobble(points)
    axes = [np.ascontiguousarray(warped[..., axis]) for axis in range(3)]
    for part in anatomy.parts:
        near = np.ones(grid.shape, bool)
        for along, low, high in zip(axes, *part.shape.box_mm(), strict=True):  # faster than all three at once
            near &= (along > low - ramp_mm) & (along < high + ramp_mm)
        fraction = np.clip(0.5 - part.shape.distance_mm(warped[near]) / ramp_mm, 0, 1)
        if part.tissue == "skin":
            inside[near] = fraction
        fraction = np.minimum(fraction, inside[near])
        image[near] += fraction * (value[part.tissue] - image[near])
        label[near] = np.where(fraction > 0.5, part.label, label[near])
    return image, label, inside


def _intensities(rng: np.random.Generator, table: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {
        tissue: float(mean + spread * np.clip(rng.standard_normal(), -2, 2)) for tissue, (mean, spread) in table.items()
    }


def _smooth_noise(rng: np.random.Generator, grid: Grid, width_mm: float) -> Array:
    """(X, Y, Z) Gaussian noise of unit variance, smoothed with a Gaussian of `width_mm` (standard deviation)."""
    spectrum = np.fft.rfftn(rng.standard_normal(grid.shape))
    axes = [np.fft.fftfreq(grid.shape[0]), np.fft.fftfreq(grid.shape[1]), np.fft.rfftfreq(grid.shape[2])]
    for axis, (frequency, spacing) in enumerate(zip(axes, grid.spacing_mm, strict=True)):
        gain = np.exp(-2 * (np.pi * frequency * width_mm / spacing) ** 2)
        spectrum *= gain.reshape([-1 if a == axis else 1 for a in range(3)])
    noise = np.fft.irfftn(spectrum, grid.shape, axes=(0, 1, 2))
    return np.asarray(noise / noise.std())


def _shading(rng: np.random.Generator, points: Points) -> Array:
    """(X, Y, Z) factor around 1, from about 0.6 to 1.6, that varies over the width of a trunk."""
    waves = draw_wobble(rng, waves=4, wavelength_mm=(260, 600), amount_mm=0.22)
    return np.asarray(np.exp(np.sin(points @ waves.directions.T + waves.phases) @ waves.amounts_mm[:, 0]))


def _table(anatomy: Anatomy, points: Points, grid: Grid) -> Array:
    """(X, Y, Z) HU of the patient table: a thin curved shell below the back, air elsewhere."""
    ramp_mm = float(np.mean(grid.spacing_mm))
    bow = Ellipsoid((0, 190 - anatomy.half_depth_mm - 9, 0), (230, 190, 5000))
    shell = np.abs(bow.distance_mm(points)) - 2.0
    fraction = np.clip(0.5 - shell / ramp_mm, 0, 1) * (points[..., 1] < -anatomy.half_depth_mm * 0.75)
    return np.asarray(AIR_HU + fraction * 950)


def _volumes(image: Array, label: npt.NDArray[np.uint8], grid: Grid) -> tuple[Volume, Volume]:
    voxels = np.round(image).astype(np.int16)
    return Volume(voxels, grid.affine_ras_mm), Volume(label, grid.affine_ras_mm)


def _rotation(angles_deg: tuple[float, float, float]) -> Array:
    """(3, 3) turn about R, then A, then S."""
    rotation = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        first, second = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    return rotation
