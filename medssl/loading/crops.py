"""What a task asks to be cut from a scan, and what is drawn for one sample of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medssl.shapes import Index3D, Shape3D


@dataclass(frozen=True)
class Crop:
    """How one patch is cut from a scan.

    Attributes:
        size: (D, H, W) of the patch in voxels.
        rotation_deg: largest angle about the D, H and W axis, in both directions.
        zoom: (lowest, highest) factor, the same for all axes; above 1 enlarges the anatomy.
        stretch: further factor per axis, drawn in [1/stretch, stretch].
        flip: probability of mirroring each of D, H, W (W = left-right in RAS).
        rotate90: whether quarter turns in the H-W plane are drawn.
        probability: that rotation, zoom and stretch are applied; otherwise the patch is read voxel for voxel.
        anchor: name of the crop near which this one lies; None: anywhere in the scan.
        max_offset: largest distance from the anchor's centre along each axis, as a fraction of the anchor's size; 0
            puts both on the same centre.
    """

    size: Shape3D
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    zoom: tuple[float, float] = (1.0, 1.0)
    stretch: float = 1.0
    flip: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotate90: bool = False
    probability: float = 1.0
    anchor: str | None = None
    max_offset: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One sample of a batch, drawn before anything is read.

    Attributes:
        number: position in the endless stream of samples; with the seed it determines everything below.
        scan_id: the scan that is read.
        start: first (d, h, w) of the box to read from the stored volume.
        stop: its end, exclusive; the box never leaves the volume.
        crops: per crop name a float64 (3, 4) matrix from patch voxel (d, h, w, 1) to stored-volume voxel (d, h, w).
    """

    number: int
    scan_id: str
    start: Index3D
    stop: Index3D
    crops: dict[str, npt.NDArray[np.float64]]
