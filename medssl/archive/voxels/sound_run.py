"""Leaves out slices whose duplicates differ or whose pixels are damaged, and keeps the longest run of sound slices.

Only the pixels show such defects, so loading finds them after the geometry of the scan has been checked. The slices
that remain must form a scan again: consecutive slices, with the checks that a part of a scan does not inherit.
"""

from collections.abc import Collection, Iterator, Sequence
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
    """Defects found while loading.

    Attributes:
        unusable: Index along the third axis to the reason why a slice cannot be used.
        damaged: Number of a file in the load plan to its problem. Its slices may have sound duplicates.
    """

    unusable: dict[int, Reason] = field(default_factory=dict)
    damaged: dict[int, Rejected] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.unusable or self.damaged)

    @property
    def reason(self) -> Reason:
        """The reason of the first unusable slice, else of the first damaged file."""
        if self.unusable:
            return self.unusable[min(self.unusable)]
        return self.damaged[min(self.damaged)].reason

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Flags of the scan."""
        differ = (Flag.F_DUPLICATES_DIFFER,) if set(self.unusable.values()) - DAMAGE else ()
        return (*differ, *((Flag.F_FILE_DAMAGED,) if self.damaged else ()))

    def detail(self, n_slices: int) -> str:
        """How many slices cannot be used, and why."""
        n_damaged = sum(reason in DAMAGE for reason in self.unusable.values())
        problems = []
        if n_differ := len(self.unusable) - n_damaged:
            problems.append(f"copies of {n_differ} of {n_slices} slices differ in their pixels")
        if self.damaged:
            example = self.damaged[min(self.damaged)].detail
            files = "1 file is" if len(self.damaged) == 1 else f"{len(self.damaged)} files are"
            problems.append(f"{files} damaged ({example}), which makes {n_damaged} of {n_slices} slices unusable")
        return ", ".join(problems)


def longest_sound_run(
    plan: DicomLoadPlan,
    used: Sequence[SliceLocation],
    volume: Volume,
    defects: Defects,
    *,
    limits: Limits,
    min_slices: int,
) -> tuple[Volume, Trim]:
    """The longest run of usable slices, and what became of the others.

    Args:
        plan: The load plan of the scan.
        used: The slices as they were read, some from a duplicate.
        volume: The scan, with all its slices.
        defects: Which slices cannot be used.
        limits: Limits for the geometry.
        min_slices: Smallest number of slices that may remain.

    Raises:
        Rejected: Fewer than `min_slices` remain, or those that remain do not form a scan.
    """
    n_slices, n_unusable = volume.shape[2], len(defects.unusable)
    run = _longest_run(defects.unusable, n_slices)
    detail = defects.detail(n_slices)
    if len(run) < max(1, min_slices):
        raise Rejected(defects.reason, f"{detail}; {len(run)} consecutive slices remain")
    affine = _moved(volume.affine_ras_mm, run.start)
    shape = (*volume.shape[:2], len(run))
    check_geometry(affine, shape, limits)
    files_read = {used[index].file for index in run}
    run_slices = [plan.slices[index] for index in run]
    run_files = files_read | {file for slice_ in run_slices for file in _files_of(slice_)}
    all_files = {file for slice_ in plan.slices for file in _files_of(slice_)}
    trimmed = (Flag.F_TRIMMED,) if len(run) < n_slices - n_unusable else ()
    return Volume(volume.voxels[:, :, run.start : run.stop], affine), Trim(
        reason=defects.reason,
        detail=f"{detail}; slices {run.start + 1} to {run.stop} are used",
        shape=shape,
        affine_ras_mm=tuple(affine.ravel().tolist()),
        n_files=len(files_read),
        n_left_out=len(all_files - (run_files - set(defects.damaged))),
        flags=(*defects.flags, *trimmed),
    )


def _files_of(slice_: SliceLocation) -> Iterator[int]:
    """Numbers of the files of a slice and its duplicates."""
    yield slice_.file
    yield from (duplicate.file for duplicate in slice_.duplicates)


def _longest_run(unusable: Collection[int], count: int) -> range:
    """The longest range below `count` without an unusable index; the first of equally long ones."""
    bounds = [-1, *sorted(unusable), count]
    runs = [range(before + 1, after) for before, after in pairwise(bounds)]
    return max(runs, key=len)


def _moved(affine_ras_mm: npt.NDArray[np.float64], slices: int) -> npt.NDArray[np.float64]:
    """The affine of a scan that begins `slices` slices further on."""
    moved = affine_ras_mm.copy()
    moved[:3, 3] += slices * affine_ras_mm[:3, 2]
    return moved
