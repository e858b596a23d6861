"""Writes a scan as a NIfTI file without any identifying text: no description, no time, no file name."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.files import atomic_write
from medssl.geometry import Volume


def write_nifti(path: Path, volume: Volume) -> None:
    """Write voxels and exact affine to a .nii.gz, and replace the file only when it is complete.

    Values are unchanged, but 64-bit integers, which few tools read, become int32 if they fit. The sform is the affine,
    shear included; the qform, which cannot express shear, is set only for an affine without shear.
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
    """64-bit integers as int32 if all of them fit; other voxels unchanged."""
    if voxels.dtype.kind not in "iu" or voxels.dtype.itemsize < 8:
        return voxels
    bounds = np.iinfo(np.int32)
    fits = bounds.min <= int(voxels.min()) and int(voxels.max()) <= bounds.max
    return voxels.astype(np.int32) if fits else voxels
