"""Planes through a volume, turned the way radiologists look at them."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
PLANES = ("axial", "coronal", "sagittal")


def focus_voxel(labels: Array | None, shape: tuple[int, ...]) -> tuple[float, ...]:
    """Where the planes cross, as shares (0 to 1) of the edges D, H, W.

    The centre of the voxel with the largest cut of `labels` (foreground: not 0) along each axis, else the middle of
    the volume.
    """
    if labels is None or not labels.any():
        return tuple((edge // 2 + 0.5) / edge for edge in shape)
    foreground = labels != 0
    counts = [foreground.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return tuple((int(count.argmax()) + 0.5) / len(count) for count in counts)


def plane_slice(volume: Array, plane: str, focus: tuple[float, ...]) -> Array:
    """2D slice of a (D, H, W) volume in RAS through `focus` (shares of the edges).

    Axial: anterior up. Coronal: superior up. Both with the patient's right on the left. Sagittal: superior up,
    anterior left.
    """
    d, h, w = (min(int(share * edge), edge - 1) for share, edge in zip(focus, volume.shape, strict=True))
    if plane == "axial":
        return volume[d, ::-1, ::-1]
    if plane == "coronal":
        return volume[::-1, h, ::-1]
    return volume[::-1, ::-1, w]
