"""A scan as a NIfTI file that names nobody: no description, no time, no file name inside."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.files import atomic_write
from medssl.geometry import Volume


def write_nifti(path: Path, volume: Volume) -> None:
    """Write voxels and exact affine to a .nii.gz, replacing the file only when it is complete.

    Values are written as they are; 64-bit whole numbers, which few tools read, as int32 where they fit. The sform is
    the affine, shear included; the qform, which cannot hold shear, is set only where there is none.
    """
    import nibabel

    voxels = _narrowed(np.asarray(volume.voxels))
    image = nibabel.Nifti1Image(voxels, volume.affine_ras_mm, dtype=voxels.dtype)
    directions = volume.affine_ras_mm[:3, :3] / np.linalg.norm(volume.affine_ras_mm[:3, :3], axis=0)
    orthogonal = bool(np.allclose(directions.T @ directions, np.eye(3), atol=1e-4))
    image.set_sform(volume.affine_ras_mm, code=1)
    image.set_qform(volume.affine_ras_mm, code=1 if orthogonal else 0)
    image.header.set_xyzt_units("mm")
    with (
        atomic_write(path) as draft,
        draft.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as file,
    ):
        file.write(image.to_bytes())


def _narrowed(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """64-bit whole numbers as int32 where all of them fit; anything else unchanged."""
    if voxels.dtype.kind not in "iu" or voxels.dtype.itemsize < 8:
        return voxels
    least, most = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    return voxels.astype(np.int32) if least <= int(voxels.min()) and int(voxels.max()) <= most else voxels
