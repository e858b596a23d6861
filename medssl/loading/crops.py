"""What a task asks to be cut from a scan, and what is drawn for one sample of it."""

from dataclasses import dataclass, replace

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


def multi_crops(
    *,
    whole: tuple[int, int, int],
    part: tuple[int, int, int],
    wholes: int = 2,
    parts: int = 4,
    whole_zoom: tuple[float, float] = (0.8, 1.25),
    part_zoom: tuple[float, float] = (1.0, 1.6),
    reach: float = 0.35,
    rotation_deg: tuple[float, float, float] = (10.0, 10.0, 10.0),
    flip: tuple[float, float, float] = (0.0, 0.0, 0.5),
) -> dict[str, Crop]:
    """Large and small views of one place, as DINO and SwAV use them: "global-0", ..., "local-0", ...

    whole, part: (D, H, W) of large and small crops in voxels. All lie near "global-0", within `reach` of its edges, so
    that one box holds them and they share content. Where each lies tells `Region.between`.
    """
    large = Crop(size=whole, rotation_deg=rotation_deg, zoom=whole_zoom, flip=flip)
    crops = {"global-0": large}
    crops |= {f"global-{i}": replace(large, anchor="global-0", reach=reach / 2) for i in range(1, wholes)}
    small = Crop(size=part, rotation_deg=rotation_deg, zoom=part_zoom, flip=flip, anchor="global-0", reach=reach)
    return crops | {f"local-{i}": small for i in range(parts)}
