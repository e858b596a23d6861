"""Checks of voxels, geometry and labels before a scan is stored, and the hash that finds equal voxels."""

import hashlib

import numpy as np
import numpy.typing as npt

from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason
from medssl.geometry import Volume, same_grid

# Smallest fraction of voxels that differ from the more frequent extreme; below, a scan is air with a speck in it.
_MIN_CONTENT = 0.005
_MAX_LABEL_VALUE = 255
# Other tools round the affine of a label: up to a twentieth of a voxel counts as the same grid.
_LABEL_GRID_TOLERANCE = 0.05


def check_voxels(volume: Volume) -> None:
    """Raise Rejected if voxels are not finite as float32 (NAN_VOXELS) or nearly constant (EMPTY_VOLUME)."""
    voxels = volume.voxels
    if np.issubdtype(voxels.dtype, np.floating):
        bad = voxels.size - int(np.count_nonzero(np.isfinite(voxels)))
        if bad:
            raise Rejected(Reason.NAN_VOXELS, f"{bad} of {voxels.size} voxels are NaN or infinite")
    low, high = voxels.min(), voxels.max()
    if max(-float(low), float(high)) > float(np.finfo(np.float32).max):
        raise Rejected(Reason.NAN_VOXELS, f"voxels from {low:g} to {high:g}, beyond the range of 32-bit floats")
    if low == high:
        raise Rejected(Reason.EMPTY_VOLUME, f"all voxels are {low:g}")
    content = min(np.count_nonzero(voxels != low), np.count_nonzero(voxels != high)) / voxels.size
    if content < _MIN_CONTENT:
        raise Rejected(Reason.EMPTY_VOLUME, f"only {content:.2%} of the voxels differ from one constant value")


def check_geometry(affine_ras_mm: npt.NDArray[np.float64], shape: tuple[int, int, int], limits: Limits) -> None:
    """Raise Rejected if an affine is not plausible for a patient (BAD_GEOMETRY, OUT_OF_RANGE, TILT_TOO_LARGE)."""
    spacing_mm = np.linalg.norm(affine_ras_mm[:3, :3], axis=0)
    if not np.isfinite(affine_ras_mm).all() or (spacing_mm <= 0).any():
        raise Rejected(Reason.BAD_GEOMETRY, "the affine has a zero column or a number that is not finite")
    smallest, largest = limits.spacing_mm
    if spacing_mm.min() < smallest or spacing_mm.max() > largest:
        voxel = " x ".join(f"{edge:.4g}" for edge in spacing_mm)
        raise Rejected(Reason.OUT_OF_RANGE, f"voxels of {voxel} mm, outside {smallest:g} to {largest:g} mm")
    extent_mm = float((spacing_mm * np.array(shape)).max())
    if extent_mm < limits.field_of_view_mm:
        raise Rejected(
            Reason.OUT_OF_RANGE, f"the field of view is {extent_mm:.3g} mm, below {limits.field_of_view_mm:g} mm"
        )
    directions = affine_ras_mm[:3, :3] / spacing_mm
    # cos(35 degrees): the same bound as for a tilted gantry.
    if abs(np.linalg.det(directions)) < 0.8191:
        raise Rejected(Reason.TILT_TOO_LARGE, "the axes are sheared against each other by more than 35 degrees")


def checked_label(label: Volume, image: Volume) -> Volume:
    """The label as uint8 with the image's affine. Raises Rejected with LABEL_GRID or LABEL_NOT_INTEGER."""
    if label.shape != image.shape:
        raise Rejected(Reason.LABEL_GRID, f"the label has {_by(label.shape)} voxels, its image {_by(image.shape)}")
    if not same_grid(label, image, tolerance_mm=_LABEL_GRID_TOLERANCE * min(image.spacing_mm)):
        raise Rejected(Reason.LABEL_GRID, "label and image have the same shape but different affines")
    voxels = label.voxels
    if np.issubdtype(voxels.dtype, np.floating) and not np.array_equal(voxels, np.rint(voxels)):
        raise Rejected(Reason.LABEL_NOT_INTEGER, "the label holds fractions or NaN")
    if voxels.min() < 0 or voxels.max() > _MAX_LABEL_VALUE:
        raise Rejected(Reason.LABEL_NOT_INTEGER, f"the label has values from {voxels.min():g} to {voxels.max():g}")
    return Volume(voxels.astype(np.uint8), image.affine_ras_mm)


def content_hash(volume: Volume) -> str:
    """BLAKE2b-128 of shape and voxels as float32: independent of file, voxel type and order in memory."""
    digest = hashlib.blake2b(repr(volume.shape).encode(), digest_size=16)
    for plane in np.moveaxis(volume.voxels, 2, 0):
        digest.update(np.ascontiguousarray(plane, dtype="<f4").tobytes())
    return digest.hexdigest()


def _by(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))
