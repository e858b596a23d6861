"""NIfTI files that lie elsewhere than before: a scan keeps its id and its label.

A DICOM series is recognised by its UIDs wherever it lies; a NIfTI file has nothing but its path.
"""

from collections.abc import Sequence
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedFile, series_key
from medssl.archive.index.load_plan import NiftiLoadPlan, StampedFile
from medssl.archive.index.missing import is_deserted
from medssl.archive.nifti.read import image_names
from medssl.archive.sources.location import is_on_disk


def adopt_moved(index: Index, files: Sequence[IndexedFile]) -> None:
    """Give each new file the scan of a file that is gone, if it is the same: by name, size, time and header. Of several
    the one whose path ends most alike.
    """
    new_files = [file for file in files if next(index.scans(series=series_key(file.path)), None) is None]
    if not new_files:
        return
    gone: dict[tuple[object, ...], list[IndexedFile]] = {}
    for file in index.vanished_files(kind="nifti"):
        gone.setdefault(_fingerprint(file), []).append(file)
    for file in new_files:
        candidates = gone.get(_fingerprint(file), [])
        scans = [(old, scan) for old in candidates for scan in index.scans(series=series_key(old.path))]
        if scans:
            old, scan = max(scans, key=lambda pair: (_common_end(pair[0].path, file.path), pair[0].path))
            candidates.remove(old)
            index.move_scan(scan.scan_id, series_key(file.path))


def label_out_of_reach(index: Index, file: IndexedFile) -> StampedFile | None:
    """The label that a scan is stored with, where its folder is gone or empty. A label that was taken out of a folder
    no longer labels the scan.
    """
    before = _earlier_plan(index, file)
    if before is None or before.label is None:
        return None
    return before.label if is_deserted(Path(before.label.path).parent) else None


def voxel_files(index: Index, file: IndexedFile, paths: Sequence[Path]) -> tuple[StampedFile, ...]:
    """The .img files beside those of `paths` that are a .hdr, so that a change of one is noticed; as they were for the
    stored scan where one is gone.
    """
    headers = [path for path in paths if path.name.lower().endswith((".hdr", ".hdr.gz")) and is_on_disk(path)]
    voxels = []
    for path in headers:
        siblings = index.known_files(path.parent)
        name = next((name for name in image_names(path) if name in siblings), None)
        if name is not None:
            voxels.append(StampedFile.of(path.with_name(name), siblings[name][0]))
    if len(voxels) == len(headers):
        return tuple(voxels)
    before = _earlier_plan(index, file)
    return before.voxels if before and before.voxels else tuple(voxels)


def _earlier_plan(index: Index, file: IndexedFile) -> NiftiLoadPlan | None:
    """From what the scan of a file was planned to be loaded before."""
    scan = next(index.scans(series=series_key(file.path)), None)
    plan = scan.load_plan if scan else None
    return plan if isinstance(plan, NiftiLoadPlan) else None


def _fingerprint(file: IndexedFile) -> tuple[object, ...]:
    return file.path.name, file.stamp, file.record


def _common_end(a: Path, b: Path) -> int:
    """How many parts two paths have in common, from their ends."""
    pairs = zip(reversed(a.parts), reversed(b.parts), strict=False)
    return next((count for count, (x, y) in enumerate(pairs) if x != y), min(len(a.parts), len(b.parts)))
