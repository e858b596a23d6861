"""What to read for one scan: files as they were when their headers were read, and where its slices lie in them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from medssl.archive.dicom.pixels import PixelFormat
from medssl.archive.index.path_text import PathText
from medssl.archive.rejection import Rejected
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Reason


@dataclass(frozen=True)
class StampedFile:
    """A file as it was when its header was read."""

    path: PathText
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, stamp: FileStamp) -> "StampedFile":
        """A file with its stamp."""
        return cls(os.fspath(path), stamp.size, stamp.mtime_ns)

    def check_unchanged(self) -> None:
        """Raise Rejected with IN_FLUX when the file is not as it was, with IO_ERROR when it is gone."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise Rejected(Reason.IO_ERROR, f"it cannot be read any more ({error.strerror})") from error
        if (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns):
            raise Rejected(Reason.IN_FLUX, "the file has changed since its header was read")


@dataclass(frozen=True)
class NiftiLoadPlan:
    """A NIfTI scan.

    Attributes:
        image: the file of the scan.
        label: the file of its label, if it has one.
        voxels: the .img files beside those of image and label that are a .hdr.
    """

    image: StampedFile
    label: StampedFile | None
    voxels: tuple[StampedFile, ...] = ()
    kind: Literal["nifti"] = "nifti"

    @property
    def image_paths(self) -> set[str]:
        """Files of the image."""
        return {self.image.path}


@dataclass(frozen=True)
class DuplicateSlice:
    """A copy of a slice, to be compared with it.

    Attributes:
        file: index into the files of the plan.
        frame: number of the frame in the file.
        same_instance: whether it has the instance UID of the slice.
    """

    file: int
    frame: int
    same_instance: bool


@dataclass(frozen=True)
class SliceLocation:
    """Where the values of one slice lie.

    Attributes:
        file: index into the files of the plan.
        frame: number of the frame in the file.
        tile: number of the tile in a mosaic, else -1.
        slope: factor from stored to physical values.
        intercept: added to the product.
        duplicates: copies of the slice.
    """

    file: int
    frame: int
    tile: int
    slope: float
    intercept: float
    duplicates: tuple[DuplicateSlice, ...] = ()


@dataclass(frozen=True)
class DicomFile:
    """A file with the layout of its pixels.

    Attributes:
        file: the file.
        layout: how its pixels are stored.
        pixel_at: where the pixel element begins, or -1 where the header scan did not meet it.
        grid: tiles per row of a mosaic or grid, else 0.
        padding: (lowest, highest) stored value that means 'no voxel'.
        lut: whether it has a modality lookup table.
    """

    file: StampedFile
    layout: PixelFormat
    pixel_at: int
    grid: int
    padding: tuple[int, int] | None
    lut: bool


@dataclass(frozen=True)
class LabelObject:
    """A segmentation or structure set that labels a scan.

    Attributes:
        file: the file.
        structure_set: whether it holds contours; else it holds frames.
        values: (number of a structure, class value of its label), in the order in which they are drawn.
    """

    file: StampedFile
    structure_set: bool
    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class DicomLoadPlan:
    """A DICOM scan.

    Attributes:
        files: all files that are read.
        slices: in order along the third axis.
        affine_ras_mm: the 4x4 affine row by row.
        modality: CT, MR or PT.
        labels: label objects, oldest first.
    """

    files: tuple[DicomFile, ...]
    slices: tuple[SliceLocation, ...]
    affine_ras_mm: tuple[float, ...]
    modality: str
    labels: tuple[LabelObject, ...] = ()
    kind: Literal["dicom"] = "dicom"

    @property
    def image_paths(self) -> set[str]:
        """Files of the image, with those that hold copies of its slices."""
        return {file.file.path for file in self.files}


LoadPlan = NiftiLoadPlan | DicomLoadPlan
LOAD_PLANS: TypeAdapter[LoadPlan] = TypeAdapter(Annotated[LoadPlan, Field(discriminator="kind")])
