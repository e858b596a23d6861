"""Which scans a source holds, and where the labels of each go: the same tree again below the out folder."""

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
# A DICOMDIR only lists what lies elsewhere.
_NO_DICOM = frozenset({Reason.NOT_DICOM, Reason.EMPTY_FILE, Reason.DICOMDIR, Reason.CONTAINER, Reason.CONTAINER_NESTED})


@dataclass(frozen=True)
class Input:
    """A scan to segment: a file, or a folder with the DICOM files of one series. problem: why it cannot be told what
    it holds.
    """

    path: Path
    output: Path
    problem: str | None = None


@dataclass(frozen=True)
class Found:
    """What a source holds. passed_over: files that are no scans, unless they lie in the folder of a series."""

    inputs: tuple[Input, ...]
    passed_over: tuple[Path, ...]


class _Kind(IntEnum):
    """What a file is to a series, by its content; IMAGE: a part of a scan, DICOM: another object, or damaged."""

    OTHER = 0
    DICOM = 1
    IMAGE = 2


def find_inputs(source: Path, out: Path) -> Found:
    """NIfTI files and folders of DICOM files below `source`, sorted; what was written into `out` is none of them.

    Raises UsageError when `source` does not exist or holds no scan.
    """
    if not source.exists():
        raise UsageError(f"{source} does not exist. Give a NIfTI file, or a folder with scans.")
    if source.is_file():
        return Found((Input(source, out / _label_name(source)),), ())
    nifti: list[Path] = []
    kinds: dict[Path, _Kind] = {}
    passed_over: list[Path] = []
    for folder, files in _folders(source, without=out):
        scans = [path for path in files if path.name.lower().endswith(_NIFTI)]
        others = [path for path in files if path not in set(scans)]
        nifti += scans
        kinds[folder] = _kind_of_folder(others)
        passed_over += others if kinds[folder] is _Kind.OTHER else ()
    series = [folder for folder, kind in kinds.items() if kind is _Kind.IMAGE]
    # DICOM files that are no images tell why they cannot be segmented, unless they only lie above a series.
    series += [
        folder
        for folder, kind in kinds.items()
        if kind is _Kind.DICOM and not any(folder in other.parents for other in series)
    ]
    inputs = [Input(path, out / path.relative_to(source).parent / _label_name(path)) for path in sorted(nifti)]
    inputs += [_series_input(folder, source, out, series) for folder in sorted(series)]
    written = {item.output.resolve() for item in inputs}
    inputs = [item for item in inputs if item.path.resolve() not in written]  # where `out` is the source
    if not inputs:
        raise UsageError(
            f"{source} holds no scan: none of its {len(passed_over)} files is a NIfTI file or a DICOM image. Name a "
            "folder with scans."
        )
    return Found(tuple(inputs), tuple(passed_over))


def check_outputs(inputs: Sequence[Input], *, overwrite: bool) -> None:
    """Raise UsageError where two inputs would be written to one file, or, unless asked to, over an existing one."""
    writers: dict[Path, Path] = {}
    for item in inputs:
        if item.output in writers:
            raise UsageError(
                f"{writers[item.output]} and {item.path} would both be written to {item.output}. Rename one of them, "
                "or segment them one by one into different folders."
            )
        writers[item.output] = item.path
    taken = [] if overwrite else [output for output in writers if output.exists()]
    if taken:
        more = f" (and {len(taken) - 1} more of the {len(inputs)} label files)" if len(taken) > 1 else ""
        raise UsageError(
            f"{taken[0]}{more} exists. Choose another folder with --out, or replace what is there with --overwrite."
        )


def _folders(source: Path, *, without: Path) -> list[tuple[Path, list[Path]]]:
    """Every folder with its files; hidden ones, and the folder `without` below the source, are left out."""
    left_out = without.resolve()
    found = []
    for place, below, names in os.walk(source):
        folder = Path(place)
        below[:] = [name for name in below if not name.startswith(".") and (folder / name).resolve() != left_out]
        files = sorted(folder / name for name in names if not name.startswith("."))
        found.append((folder, [path for path in files if path.is_file()]))
    return found


def _kind_of_folder(files: Sequence[Path]) -> _Kind:
    """The most that any of these files is, read no further than to the first image."""
    most = _Kind.OTHER
    for path in files:
        stamp = next(walk(path)).files[path.name]
        most = max(most, _kind(scan_file(path, path.parent, stamp, limits=Limits())))
        if most is _Kind.IMAGE:
            break
    return most


def _kind(file: IndexedFile) -> _Kind:
    if file.kind == "dicom" and parse_record(file.record or "").reason is None:
        return _Kind.IMAGE
    if file.kind in ("dicom", "label"):
        return _Kind.DICOM
    return _Kind.OTHER if file.reason is None or file.reason in _NO_DICOM else _Kind.DICOM


def _series_input(folder: Path, source: Path, out: Path, series: Sequence[Path]) -> Input:
    name = f"{folder.resolve().name}_labels.nii.gz"
    place = out if folder == source else out / folder.relative_to(source).parent
    mixed = any(folder in other.parents for other in series)
    problem = "It holds DICOM images beside folders with series. Move them into a folder of their own."
    return Input(folder, place / name, problem if mixed else None)


def _label_name(path: Path) -> str:
    """NAME_labels.nii.gz for a file NAME.nii.gz, NAME.nii or NAME.dcm."""
    ending = next((end for end in (".nii.gz", ".nii", ".dcm") if path.name.lower().endswith(end)), "")
    return f"{path.name[: len(path.name) - len(ending)]}_labels.nii.gz"
