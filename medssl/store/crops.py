"""What a task asks to be cut from a scan, and what is drawn for one sample of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Crop:
    """How one patch is cut from a scan.

    size: (D, H, W) of the patch in voxels. rotation_deg: largest angle about the D, H and W axis. zoom: (lowest,
    highest) factor, the same for all axes; above 1 enlarges what is seen. stretch: further factor per axis, drawn in
    [1/stretch, stretch]. flip: chance of mirroring each of D, H, W (W = left-right in RAS). rotate90: whether quarter
    turns in the H-W plane are drawn. probability: chance that rotation, zoom and stretch happen at all; else the patch
    is read voxel for voxel. anchor: name of the crop near which this one lies; `reach` is the largest distance of the
    centres as a share of the anchor's size (0 = same centre). None: anywhere in the scan.
    """

    size: tuple[int, int, int]
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    zoom: tuple[float, float] = (1.0, 1.0)
    stretch: float = 1.0
    flip: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotate90: bool = False
    probability: float = 1.0
    anchor: str | None = None
    reach: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One sample of a batch, drawn before anything is read.

    number: position in the endless stream of samples; with the seed it determines everything below.
    start, stop: (D, H, W) box to read from the stored volume, clipped to it. crops: per crop name a float64 (3, 4)
    matrix that takes patch voxel (d, h, w, 1) to stored-volume voxel (d, h, w).
    """

    number: int
    scan_id: str
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    crops: dict[str, npt.NDArray[np.float64]]
