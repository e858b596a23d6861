"""The scans below a source, and where the labels of each go: the same tree below the out folder."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from medssl.archive.dicom.record import parse_record
from medssl.archive.index.entries import IndexedFile
from medssl.archive.limits import Limits
from medssl.archive.scan.recognise import scan_file
from medssl.archive.sources.walk import walk
from medssl.cohort.reasons import Reason
from medssl.errors import UsageError

_NIFTI = (".nii", ".nii.gz")
# Files that `scan_file` rejects for these reasons say nothing about the folder: a DICOMDIR only lists other files.
_NOT_DICOM = frozenset(
    {Reason.NOT_DICOM, Reason.EMPTY_FILE, Reason.DICOMDIR, Reason.CONTAINER, Reason.CONTAINER_NESTED}
)


@dataclass(frozen=True)
class InputScan:
    """A scan to segment.

    Attributes:
        path: A file, or a folder with the DICOM files of one series.
        output: The label file to write.
        problem: Why the scan is ambiguous, such as a series above other series; None where it is not.
    """

    path: Path
    output: Path
    problem: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Everything below a source.

    Attributes:
        scans: By path; NIfTI files before DICOM series.
        skipped: Files that are not scans, unless they lie in the folder of a series.
    """

    scans: tuple[InputScan, ...]
    skipped: tuple[Path, ...]


class _Kind(IntEnum):
    """The content of a file; a folder has the largest kind of its files.

    OTHER_DICOM is a DICOM object without a volume, or a damaged one: the user is told why it cannot be segmented.
    """

    NOT_DICOM = 0
    OTHER_DICOM = 1
    IMAGE = 2


def find_inputs(source: Path, out: Path) -> Inputs:
    """NIfTI files and folders of DICOM files below `source`, sorted, without what was written into `out`.

    Raises UsageError when `source` does not exist or holds no scan.
    """
    if not source.exists():
        raise UsageError(f"{source} does not exist. Give a NIfTI file, or a folder with scans.")
    if source.is_file():
        return Inputs((InputScan(source, out / _label_name(source)),), ())
    nifti: list[Path] = []
    kinds: dict[Path, _Kind] = {}
    skipped: list[Path] = []
    for folder, files in _folders(source, without=out):
        nifti += (nifti_here := [path for path in files if path.name.lower().endswith(_NIFTI)])
        no_nifti = [path for path in files if path not in set(nifti_here)]
        kinds[folder] = _kind_of_folder(no_nifti)
        skipped += no_nifti if kinds[folder] is _Kind.NOT_DICOM else ()
    # A folder is a series where it holds images. One with other DICOM objects only is listed as well, so that the user
    # reads why it cannot be segmented; but not above a series, where a DICOMDIR or a screenshot belongs to no scan.
    series = [folder for folder, kind in kinds.items() if kind is _Kind.IMAGE]
    series += [
        folder
        for folder, kind in kinds.items()
        if kind is _Kind.OTHER_DICOM and not any(folder in image_folder.parents for image_folder in series)
    ]
    scans = [InputScan(path, out / path.relative_to(source).parent / _label_name(path)) for path in sorted(nifti)]
    scans += [_series_input(folder, source, out, series) for folder in sorted(series)]
    # Where `out` is the source, label files of an earlier call lie among the scans.
    outputs = {scan.output.resolve() for scan in scans}
    scans = [scan for scan in scans if scan.path.resolve() not in outputs]
    if not scans:
        raise UsageError(
            f"{source} holds no scan: none of its {len(skipped)} files is a NIfTI file or a DICOM image. Name a "
            "folder with scans."
        )
    return Inputs(tuple(scans), tuple(skipped))


def check_outputs(scans: Sequence[InputScan], *, overwrite: bool) -> None:
    """Raise UsageError where two scans share a label file, or where one exists and `overwrite` is not set."""
    source_of: dict[Path, Path] = {}
    for scan in scans:
        if scan.output in source_of:
            raise UsageError(
                f"{source_of[scan.output]} and {scan.path} would both be written to {scan.output}. Rename one of them, "
                "or segment them one by one into different folders."
            )
        source_of[scan.output] = scan.path
    existing = [] if overwrite else [output for output in source_of if output.exists()]
    if existing:
        more = f" (and {len(existing) - 1} more of the {len(scans)} label files)" if len(existing) > 1 else ""
        raise UsageError(
            f"{existing[0]}{more} exists. Choose another folder with --out, or replace existing files with --overwrite."
        )


def _folders(source: Path, *, without: Path) -> list[tuple[Path, list[Path]]]:
    """Every folder with its files; hidden ones, and the folder `without` below the source, are left out."""
    excluded = without.resolve()
    folders = []
    for path, subfolders, names in os.walk(source):
        folder = Path(path)
        # In place: os.walk descends into what remains. The source itself may be `without`, and is still walked.
        subfolders[:] = [n for n in subfolders if not n.startswith(".") and (folder / n).resolve() != excluded]
        files = sorted(folder / name for name in names if not name.startswith("."))
        folders.append((folder, [path for path in files if path.is_file()]))
    return folders


def _kind_of_folder(files: Sequence[Path]) -> _Kind:
    """The largest kind of these files, which are read up to the first image."""
    kind = _Kind.NOT_DICOM
    for path in files:
        stamp = next(walk(path)).files[path.name]
        kind = max(kind, _kind(scan_file(path, path.parent, stamp, limits=Limits())))
        if kind is _Kind.IMAGE:
            break
    return kind


def _kind(file: IndexedFile) -> _Kind:
    if file.kind == "dicom" and parse_record(file.record or "").reason is None:
        return _Kind.IMAGE
    if file.kind in ("dicom", "label"):
        return _Kind.OTHER_DICOM
    return _Kind.NOT_DICOM if file.reason is None or file.reason in _NOT_DICOM else _Kind.OTHER_DICOM


def _series_input(folder: Path, source: Path, out: Path, series: Sequence[Path]) -> InputScan:
    name = f"{folder.resolve().name}_labels.nii.gz"
    out_folder = out if folder == source else out / folder.relative_to(source).parent
    is_above_series = any(folder in other.parents for other in series)
    problem = "It holds DICOM images beside folders with series. Move them into a folder of their own."
    return InputScan(folder, out_folder / name, problem if is_above_series else None)


def _label_name(path: Path) -> str:
    """NAME_labels.nii.gz for a file NAME.nii.gz, NAME.nii or NAME.dcm."""
    ending = next((end for end in (".nii.gz", ".nii", ".dcm") if path.name.lower().endswith(end)), "")
    return f"{path.name[: len(path.name) - len(ending)]}_labels.nii.gz"
