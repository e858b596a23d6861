"""NIfTI files that lie elsewhere than before: a scan keeps its id and its label.

A DICOM series is known by its UIDs wherever it lies; of a NIfTI file there is only the place.
"""

from collections.abc import Sequence
from pathlib import Path

from medssl.archive.index.database import Index
from medssl.archive.index.entries import IndexedFile, series_key
from medssl.archive.index.load_plan import NiftiLoadPlan, StampedFile, parse_source
from medssl.archive.index.missing import is_deserted
from medssl.archive.nifti.read import image_names
from medssl.archive.sources.location import is_on_disk


def adopt_moved(index: Index, files: Sequence[IndexedFile]) -> None:
    """Give each new file the scan of a file that is gone, if it is the same: by name, size, time and header. Of several
    the one whose path ends most alike.
    """
    fresh = [file for file in files if next(index.scans(series=series_key(file.path)), None) is None]
    if not fresh:
        return
    gone: dict[tuple[object, ...], list[IndexedFile]] = {}
    for file in index.vanished_files(kind="nifti"):
        gone.setdefault(_looks(file), []).append(file)
    for file in fresh:
        alike = gone.get(_looks(file), [])
        scans = [(old, scan) for old in alike for scan in index.scans(series=series_key(old.path))]
        if scans:
            old, scan = max(scans, key=lambda one: (_shared_end(one[0].path, file.path), one[0].path))
            alike.remove(old)
            index.move_scan(scan.scan_id, series_key(file.path))


def label_out_of_reach(index: Index, file: IndexedFile) -> StampedFile | None:
    """The label that a scan is stored with, where its folder is gone or empty. A label that was taken out of a folder
    is no label any more.
    """
    source = _known_source(index, file)
    if source is None or source.label is None:
        return None
    return source.label if is_deserted(Path(source.label.path).parent) else None


def voxel_files(index: Index, file: IndexedFile, paths: Sequence[Path]) -> tuple[StampedFile, ...]:
    """The .img files beside those of `paths` that are a .hdr, so that a change of one is seen; as they were for the
    stored scan where one is gone.
    """
    headers = [path for path in paths if path.name.lower().endswith((".hdr", ".hdr.gz")) and is_on_disk(path)]
    found = []
    for path in headers:
        known = index.known(path.parent)
        name = next((name for name in image_names(path) if name in known), None)
        if name is not None:
            found.append(StampedFile.of(path.with_name(name), known[name][0]))
    if len(found) == len(headers):
        return tuple(found)
    source = _known_source(index, file)
    return source.voxels if source and source.voxels else tuple(found)


def _known_source(index: Index, file: IndexedFile) -> NiftiLoadPlan | None:
    """What the scan of a file was planned to be loaded from before."""
    scan = next(index.scans(series=series_key(file.path)), None)
    source = parse_source(scan.source) if scan and scan.source else None
    return source if isinstance(source, NiftiLoadPlan) else None


def _looks(file: IndexedFile) -> tuple[object, ...]:
    return file.path.name, file.stamp, file.record


def _shared_end(one: Path, other: Path) -> int:
    """How many parts two paths share, from their ends."""
    pairs = zip(reversed(one.parts), reversed(other.parts), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(one.parts), len(other.parts)))
