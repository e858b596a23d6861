"""Slices of which copies contradict each other: left out, all copies of them, and the rest of the scan kept.

Only the pixels show it, so it is found while loading, after the positions have been proven. What is left must stand by
itself: the longest run of neighbouring slices, with every proof of a scan that does not hold for a part by itself.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medssl.archive.limits import Limits
from medssl.archive.quality import check_geometry
from medssl.archive.reasons import Flag, Reason
from medssl.archive.rejection import Rejected
from medssl.archive.sources import DicomSource
from medssl.geometry import Volume


@dataclass(frozen=True)
class Trim:
    """What a scan lost while it was loaded. shape, affine_ras_mm, n_files: of what is left. n_left_out: files that no
    slice of it comes from.
    """

    reason: Reason
    finding: str
    shape: tuple[int, int, int]
    affine_ras_mm: tuple[float, ...]
    n_files: int
    n_left_out: int
    flags: tuple[Flag, ...]


def trim(
    source: DicomSource, volume: Volume, doubtful: dict[int, Reason], *, limits: Limits, min_slices: int
) -> tuple[Volume, Trim]:
    """The longest run of slices without a doubtful one, and what became of the others.

    doubtful: why, by place of the slice along the third axis. Raises Rejected where fewer than `min_slices` are left or
    they are no scan by themselves.
    """
    n_slices = volume.shape[2]
    run = _longest_run(doubtful, n_slices)
    reason = doubtful[min(doubtful)]
    finding = f"copies of {len(doubtful)} of {n_slices} slices differ in their pixels"
    if len(run) < max(1, min_slices):
        raise Rejected(reason, f"{finding}; {len(run)} neighbouring slices are left")
    affine = _moved(volume.affine_ras_mm, run.start)
    shape = (*volume.shape[:2], len(run))
    check_geometry(affine, shape, limits)
    used = {source.slices[place].file for place in run}
    seen = {file for one in source.slices for file in (one.file, *(twin.file for twin in one.twins))}
    kept = used | {twin.file for place in run for twin in source.slices[place].twins}
    return Volume(volume.voxels[:, :, run.start : run.stop], affine), Trim(
        reason=reason,
        finding=f"{finding}; slices {run.start + 1} to {run.stop} are used",
        shape=shape,
        affine_ras_mm=tuple(affine.ravel().tolist()),
        n_files=len(used),
        n_left_out=len(seen - kept),
        flags=(Flag.F_TWINS_DIFFER, *((Flag.F_TRIMMED,) if len(run) < n_slices - len(doubtful) else ())),
    )


def _longest_run(doubtful: Collection[int], count: int) -> range:
    """The longest range below `count` without a doubtful number; the first of equally long ones."""
    walls = [-1, *sorted(doubtful), count]
    runs = [range(before + 1, after) for before, after in pairwise(walls)]
    return max(runs, key=len)


def _moved(affine_ras_mm: npt.NDArray[np.float64], slices: int) -> npt.NDArray[np.float64]:
    """The affine whose first slice is that many slices further on."""
    moved = affine_ras_mm.copy()
    moved[:3, 3] += slices * affine_ras_mm[:3, 2]
    return moved
