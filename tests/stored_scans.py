"""Small scans with known voxels for the tests of the data path."""

from pathlib import Path

import numpy as np

from medssl.geometry import Volume
from medssl.store.policy import Packing, StorePolicy
from medssl.store.volumes import StoredVolume, write_volume

# Right, anterior, superior; three unequal spacings and an oblique turn about z of 20 degrees.
TURN = np.deg2rad(20.0)
OBLIQUE = np.array(
    [
        [0.8 * np.cos(TURN), -1.1 * np.sin(TURN), 0.0, -30.0],
        [0.8 * np.sin(TURN), 1.1 * np.cos(TURN), 0.0, 12.0],
        [0.0, 0.0, 2.5, 5.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def ramp(shape: tuple[int, int, int] = (14, 11, 9)) -> np.ndarray:
    """(X, Y, Z) int16 voxels, each with a value of its own."""
    x, y, z = np.indices(shape)
    return (x + 20 * y + 400 * z).astype(np.int16)


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2000, shape).astype(np.int16)


def store_scan(
    folder: Path,
    scan_id: str,
    voxels: np.ndarray,
    *,
    label: np.ndarray | None = None,
    modality: str = "MR",
    packing: Packing = "lz4",
) -> StoredVolume:
    affine = np.diag([0.8, 1.1, 2.5, 1.0])
    return write_volume(
        folder,
        scan_id,
        Volume(voxels, affine),
        modality=modality,
        label=None if label is None else Volume(label, affine),
        policy=StorePolicy(packing=packing),
    )
