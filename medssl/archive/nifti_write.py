"""A scan as a NIfTI file that names nobody: no description, no time, no file name inside."""

import gzip
import os
from pathlib import Path

import numpy as np

from medssl.errors import DataError
from medssl.geometry import Volume


def write_nifti(path: Path, volume: Volume) -> None:
    """Write voxels and exact affine to a .nii.gz, replacing the file only when it is complete.

    The sform is the affine, shear included; the qform, which cannot hold shear, is set only where there is none.
    """
    import nibabel

    image = nibabel.Nifti1Image(np.asarray(volume.voxels), volume.affine_ras_mm)
    directions = volume.affine_ras_mm[:3, :3] / np.linalg.norm(volume.affine_ras_mm[:3, :3], axis=0)
    orthogonal = bool(np.allclose(directions.T @ directions, np.eye(3), atol=1e-4))
    image.set_sform(volume.affine_ras_mm, code=1)
    image.set_qform(volume.affine_ras_mm, code=1 if orthogonal else 0)
    image.header.set_xyzt_units("mm")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as file:
            file.write(image.to_bytes())
            file.flush()
            os.fsync(raw.fileno())
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"{path.parent} cannot be written ({error.strerror}). Make room, or choose another --out."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
