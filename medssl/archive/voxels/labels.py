"""The label of a planned scan from the segmentations and structure sets that were found for it."""

from collections.abc import Sequence

from medssl.archive.index.load_plan import LabelObject
from medssl.archive.labels.label_map import LabelMap
from medssl.archive.labels.segmentation import draw_segments
from medssl.archive.labels.structure_set import draw_structures
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.voxels.local_copies import local_copies
from medssl.cohort.reasons import Flag, Reason
from medssl.geometry import Volume

_OWN = frozenset({Reason.LABEL_GRID, Reason.LABEL_CONTOURS, Reason.LABEL_OFF_SLICE})


def read_label_objects(
    objects: Sequence[LabelObject], volume: Volume, *, limits: Limits
) -> tuple[Volume | None, Rejected | None, tuple[Flag, ...]]:
    """(label as uint8 on the grid of the scan, why it or a part of it is left out, what was noticed).

    The newer object is drawn over the older one, and the later structure of an object over the earlier one. What is
    wrong with an object costs that object, never the scan.
    """
    whole = LabelMap(volume.shape, volume.affine_ras_mm)
    problems: list[Rejected] = []
    flags: list[Flag] = []
    drawn = 0
    for one in objects:
        try:
            canvas = LabelMap(volume.shape, volume.affine_ras_mm)
            flags += _draw(one, canvas, problems, limits)
            whole.draw_over(canvas)
            drawn += 1
        except Rejected as rejected:
            problems.append(rejected if rejected.reason in _OWN else _unreadable(rejected))
    if whole.overlapping:
        flags.append(Flag.F_LABEL_OVERLAP)
    if problems:
        flags.append(Flag.F_LABEL_PART if drawn else Flag.F_LABEL_LEFT_OUT)
    label = Volume(whole.values, volume.affine_ras_mm) if drawn else None
    return label, problems[0] if problems else None, tuple(dict.fromkeys(flags))


def _draw(one: LabelObject, canvas: LabelMap, problems: list[Rejected], limits: Limits) -> tuple[Flag, ...]:
    with local_copies(one, limits=limits) as near:
        near.file.check_unchanged()
        flags: tuple[Flag, ...] = ()
        if near.structure_set:
            problem = draw_structures(near.file.path, dict(near.values), canvas, limits=limits)
            problems += [problem] if problem else []
        else:
            flags = draw_segments(near.file.path, dict(near.values), canvas, limits=limits)
        near.file.check_unchanged()
    return flags


def _unreadable(rejected: Rejected) -> Rejected:
    return Rejected(Reason.LABEL_UNREADABLE, f"{rejected.detail} ({rejected.reason})")
