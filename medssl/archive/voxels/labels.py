"""The label of a planned scan, drawn from its segmentations and structure sets."""

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

# Other reasons are about the file; the manifest reports them as LABEL_UNREADABLE.
_LABEL_REASONS = frozenset({Reason.LABEL_GRID, Reason.LABEL_CONTOURS, Reason.LABEL_OFF_SLICE})


def read_label_objects(
    objects: Sequence[LabelObject], volume: Volume, *, limits: Limits
) -> tuple[Volume | None, Rejected | None, tuple[Flag, ...]]:
    """Draw the label objects of a scan, later ones over earlier ones.

    Args:
        objects: Oldest first.
        volume: The scan.
        limits: Limits for the files.

    Returns:
        (label as uint8 on the grid of the scan, first problem, flags). A problem of an object leaves out that object,
        never the scan.
    """
    label_map = LabelMap(volume.shape, volume.affine_ras_mm)
    problems: list[Rejected] = []
    flags: list[Flag] = []
    drawn = 0
    for label_object in objects:
        try:
            # A map of its own: an object that fails halfway must leave nothing behind.
            object_map = LabelMap(volume.shape, volume.affine_ras_mm)
            flags += _draw(label_object, object_map, problems, limits)
            label_map.draw_over(object_map)
            drawn += 1
        except Rejected as rejected:
            problems.append(rejected if rejected.reason in _LABEL_REASONS else _unreadable(rejected))
    if label_map.overlapping:
        flags.append(Flag.F_LABEL_OVERLAP)
    if problems:
        flags.append(Flag.F_LABEL_PART if drawn else Flag.F_LABEL_LEFT_OUT)
    label = Volume(label_map.values, volume.affine_ras_mm) if drawn else None
    return label, problems[0] if problems else None, tuple(dict.fromkeys(flags))


def _draw(label_object: LabelObject, label_map: LabelMap, problems: list[Rejected], limits: Limits) -> tuple[Flag, ...]:
    with local_copies(label_object, limits=limits) as local:
        local.file.check_unchanged()
        flags: tuple[Flag, ...] = ()
        if local.structure_set:
            problem = draw_structures(local.file.path, dict(local.values), label_map, limits=limits)
            problems += [problem] if problem else []
        else:
            flags = draw_segments(local.file.path, dict(local.values), label_map, limits=limits)
        local.file.check_unchanged()
    return flags


def _unreadable(rejected: Rejected) -> Rejected:
    return Rejected(Reason.LABEL_UNREADABLE, f"{rejected.detail} ({rejected.reason})")
