"""Small DICOM series with a known answer, written with pydicom: independent of the reader under test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}


def oblique() -> tuple[np.ndarray, np.ndarray]:
    """Row and column direction of a plane that is parallel to no axis."""
    row = np.array([0.9, 0.3, -0.2])
    row /= np.linalg.norm(row)
    column = np.cross([0.1, -0.2, 0.97], row)
    return row, column / np.linalg.norm(column)


@dataclass
class Series:
    """One series. voxels: (X, Y, Z) stored values. Everything geometric is LPS mm, as DICOM has it."""

    voxels: np.ndarray
    row: np.ndarray = field(default_factory=lambda: oblique()[0])
    column: np.ndarray = field(default_factory=lambda: oblique()[1])
    origin_mm: np.ndarray = field(default_factory=lambda: np.array([-31.5, 12.25, 7.0]))
    row_spacing_mm: float = 2.5
    column_spacing_mm: float = 1.5
    step_mm: np.ndarray | None = None
    modality: str = "CT"
    slope: float = 1.0
    intercept: float = -1024.0
    patient: str = "P-1001"
    series_uid: str = field(default_factory=generate_uid)
    study_uid: str = field(default_factory=generate_uid)

    def __post_init__(self) -> None:
        if self.step_mm is None:
            self.step_mm = 4.0 * np.cross(self.row, self.column)

    @property
    def affine_ras_mm(self) -> np.ndarray:
        """Closed form: where voxel (i, j, k) lies."""
        affine = np.eye(4)
        affine[:3, 0] = self.row * self.column_spacing_mm
        affine[:3, 1] = self.column * self.row_spacing_mm
        affine[:3, 2] = self.step_mm
        affine[:3, 3] = self.origin_mm
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine

    @property
    def physical(self) -> np.ndarray:
        return self.voxels * self.slope + self.intercept

    def dataset(self, k: int) -> pydicom.Dataset:
        """Slice k as a dataset."""
        plane = np.ascontiguousarray(self.voxels[:, :, k].T)
        ds = pydicom.Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SOP_CLASSES[self.modality]
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.Modality, ds.Manufacturer, ds.PatientID = self.modality, "SIEMENS", self.patient
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = self.study_uid, self.series_uid, "1.2.3.4"
        ds.InstanceNumber, ds.AcquisitionNumber = k + 1, 1
        ds.ImagePositionPatient = [f"{value:.9g}" for value in self.origin_mm + k * self.step_mm]
        ds.ImageOrientationPatient = [f"{value:.12g}" for value in (*self.row, *self.column)]
        ds.PixelSpacing = [self.row_spacing_mm, self.column_spacing_mm]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = plane.shape
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelRepresentation = int(np.issubdtype(plane.dtype, np.signedinteger))
        if ds.PixelRepresentation:
            ds.BitsStored, ds.HighBit = 16, 15
        ds.RescaleSlope, ds.RescaleIntercept = self.slope, self.intercept
        ds.PixelData = plane.astype(plane.dtype.newbyteorder("<")).tobytes()
        return ds

    def write(self, folder: Path, edit: Callable[[pydicom.Dataset, int], None] | None = None) -> list[Path]:
        """Write every slice as a file without extension; `edit` may change a slice before."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for k in range(self.voxels.shape[2]):
            ds = self.dataset(k)
            if edit is not None:
                edit(ds, k)
            paths.append(folder / f"IM{len(list(folder.iterdir())):04d}")
            save(ds, paths[-1])
        return paths


def save(ds: pydicom.Dataset, path: Path) -> None:
    """Write a dataset as a DICOM file."""
    ds.save_as(path, enforce_file_format=True, little_endian=True, implicit_vr=False)


def random_voxels(shape: tuple[int, int, int] = (14, 11, 9), *, seed: int = 0, high: int = 4096) -> np.ndarray:
    """Unsigned 12-bit voxels, unequal edges."""
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint16)
