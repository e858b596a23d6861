"""Slices of which copies contradict each other, or of which no copy is sound: left out, and the rest of the scan kept.

Only the pixels show it, so it is found while loading, after the positions have been proven. What is left must stand by
itself: the longest run of neighbouring slices, with every proof of a scan that does not hold for a part by itself.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from medssl.archive.checks import check_geometry
from medssl.archive.index.load_plan import DicomLoadPlan, SliceLocation
from medssl.archive.index.planned_scan import DAMAGE, Trim
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Flag, Reason
from medssl.geometry import Volume


@dataclass
class Defects:
    """What loading found. doubtful: why a slice cannot be used, by its place along the third axis. damaged: why a file
    cannot, by its number in the source; its slices may have sound copies.
    """

    doubtful: dict[int, Reason] = field(default_factory=dict)
    damaged: dict[int, Rejected] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.doubtful or self.damaged)

    @property
    def reason(self) -> Reason:
        """Of several the one of the first slice, else of the first file."""
        if self.doubtful:
            return self.doubtful[min(self.doubtful)]
        return self.damaged[min(self.damaged)].reason

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What the scan is marked with, its slices aside."""
        differ = (Flag.F_DUPLICATES_DIFFER,) if set(self.doubtful.values()) - DAMAGE else ()
        return (*differ, *((Flag.F_FILE_DAMAGED,) if self.damaged else ()))

    def detail(self, n_slices: int) -> str:
        """In numbers, how many slices cannot be used and why."""
        torn = sum(reason in DAMAGE for reason in self.doubtful.values())
        told = []
        if differ := len(self.doubtful) - torn:
            told.append(f"copies of {differ} of {n_slices} slices differ in their pixels")
        if self.damaged:
            why = self.damaged[min(self.damaged)].detail
            files = "1 file is" if len(self.damaged) == 1 else f"{len(self.damaged)} files are"
            told.append(f"{files} damaged ({why}), which costs {torn} of {n_slices} slices")
        return ", ".join(told)


def longest_sound_run(
    source: DicomLoadPlan,
    used: Sequence[SliceLocation],
    volume: Volume,
    losses: Defects,
    *,
    limits: Limits,
    min_slices: int,
) -> tuple[Volume, Trim]:
    """The longest run of slices without a doubtful one, and what became of the others.

    used: the slices as they were read, some from a copy. Raises Rejected where fewer than `min_slices` are left or they
    are no scan by themselves.
    """
    n_slices, n_doubtful = volume.shape[2], len(losses.doubtful)
    run = _longest_run(losses.doubtful, n_slices)
    detail = losses.detail(n_slices)
    if len(run) < max(1, min_slices):
        raise Rejected(losses.reason, f"{detail}; {len(run)} neighbouring slices are left")
    affine = _moved(volume.affine_ras_mm, run.start)
    shape = (*volume.shape[:2], len(run))
    check_geometry(affine, shape, limits)
    first = {used[place].file for place in run}
    seen = {file for one in source.slices for file in (one.file, *(twin.file for twin in one.duplicates))}
    copies = {twin.file for place in run for twin in source.slices[place].duplicates}
    kept = (first | copies | {source.slices[place].file for place in run}) - set(losses.damaged)
    trimmed = (Flag.F_TRIMMED,) if len(run) < n_slices - n_doubtful else ()
    return Volume(volume.voxels[:, :, run.start : run.stop], affine), Trim(
        reason=losses.reason,
        detail=f"{detail}; slices {run.start + 1} to {run.stop} are used",
        shape=shape,
        affine_ras_mm=tuple(affine.ravel().tolist()),
        n_files=len(first),
        n_left_out=len(seen - kept),
        flags=(*losses.flags, *trimmed),
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
