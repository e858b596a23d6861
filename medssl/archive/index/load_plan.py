"""What must be read for one scan, as it lies in the private index."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medssl.archive.dicom.pixels import PixelFormat
from medssl.archive.rejection import Rejected
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Reason


@dataclass(frozen=True)
class StampedFile:
    """A file as it was when its header was read."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, stamp: FileStamp) -> "StampedFile":
        """A file with its stamp."""
        return cls(os.fspath(path), stamp.size, stamp.mtime_ns)

    def check_unchanged(self) -> None:
        """Raise Rejected with IN_FLUX when the file is not as it was, with IO_ERROR when it is gone."""
        try:
            facts = os.stat(self.path)
        except OSError as error:
            raise Rejected(Reason.IO_ERROR, f"it cannot be read any more ({error.strerror})") from error
        if (facts.st_size, facts.st_mtime_ns) != (self.size, self.mtime_ns):
            raise Rejected(Reason.IN_FLUX, "the file has changed since its header was read")


@dataclass(frozen=True)
class NiftiLoadPlan:
    """A NIfTI scan and its label, if it has one. voxels: of a .hdr the .img beside it."""

    image: StampedFile
    label: StampedFile | None
    voxels: tuple[StampedFile, ...] = ()


@dataclass(frozen=True)
class DuplicateSlice:
    """A copy of a slice, to be compared with it. same_instance: under the same instance UID."""

    file: int
    frame: int
    same_instance: bool


@dataclass(frozen=True)
class SliceLocation:
    """Where the values of one slice lie: file (index into the source's files), frame, tile of a mosaic (else -1)."""

    file: int
    frame: int
    tile: int
    slope: float
    intercept: float
    duplicates: tuple[DuplicateSlice, ...] = ()


@dataclass(frozen=True)
class DicomFile:
    """A file with the layout of its pixels. pixel_at: where the pixel element begins, or -1. grid: tiles per row, or
    0.
    """

    file: StampedFile
    layout: PixelFormat
    pixel_at: int
    grid: int
    padding: tuple[int, int] | None
    lut: bool


@dataclass(frozen=True)
class LabelObject:
    """A segmentation or structure set that labels a scan. values: (number of a structure, number of its label), in the
    order in which they are drawn.
    """

    file: StampedFile
    structure_set: bool
    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class DicomLoadPlan:
    """A DICOM scan: slices in order along the third axis. modality: CT, MR or PT. affine_ras_mm: row by row. labels:
    oldest first.
    """

    files: tuple[DicomFile, ...]
    slices: tuple[SliceLocation, ...]
    affine_ras_mm: tuple[float, ...]
    modality: str
    labels: tuple[LabelObject, ...] = ()


LoadPlan = NiftiLoadPlan | DicomLoadPlan


def source_json(source: LoadPlan) -> str:
    """A source as text."""
    kind = "nifti" if isinstance(source, NiftiLoadPlan) else "dicom"
    facts = asdict(source)
    if isinstance(source, NiftiLoadPlan) and not source.voxels:
        del facts["voxels"]
    return json.dumps({kind: facts}, sort_keys=True, separators=(",", ":"))


def without_labels(text: str) -> str | None:
    """The same source, as text, without its label objects; None where it has none."""
    source = parse_source(text)
    if not isinstance(source, DicomLoadPlan) or not source.labels:
        return None
    return source_json(replace(source, labels=()))


def parse_source(text: str) -> LoadPlan:
    """The source that `source_json` wrote."""
    facts = json.loads(text)
    if "dicom" in facts:
        return _dicom(facts["dicom"])
    label = facts["nifti"]["label"]
    voxels = tuple(StampedFile(**one) for one in facts["nifti"].get("voxels", ()))
    return NiftiLoadPlan(StampedFile(**facts["nifti"]["image"]), StampedFile(**label) if label else None, voxels)


def _dicom(facts: dict[str, Any]) -> DicomLoadPlan:
    files = tuple(
        DicomFile(
            file=StampedFile(**file["file"]),
            layout=PixelFormat(**file["layout"]),
            pixel_at=file["pixel_at"],
            grid=file["grid"],
            padding=tuple(file["padding"]) if file["padding"] else None,
            lut=file["lut"],
        )
        for file in facts["files"]
    )
    slices = tuple(
        SliceLocation(
            **{**slice_, "duplicates": tuple(DuplicateSlice(**duplicate) for duplicate in slice_["duplicates"])}
        )
        for slice_ in facts["slices"]
    )
    labels = tuple(
        LabelObject(StampedFile(**one["file"]), one["structure_set"], tuple((a, b) for a, b in one["values"]))
        for one in facts.get("labels", ())
    )
    return DicomLoadPlan(files, slices, tuple(facts["affine_ras_mm"]), facts["modality"], labels)


def image_paths(text: str) -> set[str]:
    """The image files of the source that `source_json` wrote, copies included."""
    source = parse_source(text)
    return {source.image.path} if isinstance(source, NiftiLoadPlan) else {one.file.path for one in source.files}
