"""Small NIfTI files for tests."""

from pathlib import Path

import nibabel
import numpy as np

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def scan_voxels(seed: int, shape: tuple[int, int, int] = (12, 10, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 500, shape).astype(np.int16)


def label_voxels(shape: tuple[int, int, int] = (12, 10, 8)) -> np.ndarray:
    voxels = np.zeros(shape, np.uint8)
    voxels[3:6, 2:7, 2:5], voxels[7:9, 3:5, 3:6] = 1, 2
    return voxels


def labelled_folder(root: Path, count: int = 4) -> Path:
    """images/ and labels/ with the same file names; the last image has no label."""
    for number in range(count):
        nifti(root / "images" / f"case_{number}.nii.gz", scan_voxels(number))
        if number < count - 1:
            nifti(root / "labels" / f"case_{number}.nii.gz", label_voxels())
    return root
