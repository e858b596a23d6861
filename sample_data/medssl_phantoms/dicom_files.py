"""Volumes as DICOM series, as scanners export them, and the other files of an archive."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from medssl.geometry import Volume

# Written into every file, so that the bytes do not depend on the version of pydicom.
IMPLEMENTATION_UID = "2.25.211387464312187233404413412014203203137"
IMPLEMENTATION_NAME = "MEDSSL_PHANTOMS"
PRIVATE_GROUP = 0x0029


@dataclass(frozen=True)
class Identity:
    """Identity of a synthetic patient. None of its strings may leave the archive."""

    name: str
    patient_id: str
    birth_date: str
    institution: str
    physician: str

    def strings(self) -> tuple[str, ...]:
        """The strings that identify the patient."""
        family_name, given_name = self.name.split("^")
        return family_name, given_name, self.patient_id, self.institution, self.physician.split("^")[0]


@dataclass(frozen=True)
class Series:
    """Header values of an exported series. `number` is SeriesNumber, unique within the study."""

    identity: Identity
    study: str
    number: int
    modality: str
    description: str
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    manufacturer: str = "Phantom Scanners"

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID."""
        return uid(self.identity.patient_id, self.study)

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return uid(self.identity.patient_id, self.study, str(self.number))


def uid(*names: str) -> str:
    """UID determined by these names (DICOM PS3.5 B.2: 2.25. and a 128-bit number)."""
    return f"2.25.{int.from_bytes(hashlib.blake2b('/'.join(names).encode(), digest_size=15).digest(), 'big')}"


def write_series(
    folder: Path, volume: Volume, series: Series, *, suffix: str = "", order: Sequence[int] | None = None
) -> list[Path]:
    """Write one file per slice along the third axis; return the paths. `order` lists the slices of file 1, 2, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    slices = range(volume.shape[2]) if order is None else order
    for number, k in enumerate(slices, start=1):
        path = folder / f"IM{number:06d}{suffix}"
        slice_of(volume, k, series, number=number).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def slice_of(volume: Volume, k: int, series: Series, *, number: int) -> FileDataset:
    """Single-frame image of slice `k`; `number`: InstanceNumber."""
    sop_class = CTImageStorage if series.modality == "CT" else MRImageStorage
    image = _header(series, sop_class, number)
    _set_geometry(image, volume, k)
    stored = volume.voxels[:, :, k].astype(np.int32).T  # rows run along the second axis
    if series.modality == "CT":
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "-1024", "1", "HU"
        image.KVP, image.ConvolutionKernel = "120", "B30f"
        stored = stored + 1024
    else:
        image.RepetitionTime, image.EchoTime, image.ScanningSequence, image.SequenceVariant = "520", "12", "SE", "NONE"
        image.ScanOptions, image.MRAcquisitionType, image.MagneticFieldStrength = "", "2D", "1.5"
    _set_pixels(image, stored.astype(np.uint16))
    return image


def write_localizer(folder: Path, volume: Volume, series: Series) -> list[Path]:
    """Write three orthogonal planes through the middle of `volume`, as planning does; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, axes in enumerate([(0, 1, 2), (0, 2, 1), (1, 2, 0)], start=1):
        affine = volume.affine_ras_mm[:, [*axes, 3]]
        turned = Volume(volume.voxels.transpose(axes), affine)
        paths.append(folder / f"IM{number:06d}")
        slice_of(turned, turned.shape[2] // 2, series, number=number).save_as(paths[-1], enforce_file_format=True)
    return paths


def write_secondary_capture(path: Path, volume: Volume, series: Series) -> Path:
    """Write a colour screenshot of the middle slice, as workstations send to the archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = _header(series, SecondaryCaptureImageStorage, 1)
    image.ConversionType = "WSD"
    grey = volume.voxels[:, :, volume.shape[2] // 2].T.astype(float)
    levels = np.clip((grey - grey.min()) / max(np.ptp(grey), 1) * 255, 0, 255).astype(np.uint8)
    colour = np.repeat(levels[..., None], 3, axis=2)
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.Rows, image.Columns = colour.shape[:2]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = colour.tobytes()
    image.save_as(path, enforce_file_format=True)
    return path


def write_truncated(path: Path, volume: Volume, series: Series) -> Path:
    """Write a slice whose file ends in the middle of the pixels, as after a broken transfer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slice_of(volume, 0, series, number=1).save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - volume.shape[0] * volume.shape[1]])
    return path


def _header(series: Series, sop_class: str, number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid(series.series_uid, str(number))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION_UID, IMPLEMENTATION_NAME
    image = FileDataset("", Dataset(), preamble=b"\0" * 128, file_meta=meta)
    image.SOPClassUID, image.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = series.study_uid, series.series_uid
    image.FrameOfReferenceUID, image.PositionReferenceIndicator = uid(series.study_uid, "frame"), ""
    image.Modality, image.Manufacturer = series.modality, series.manufacturer
    image.ManufacturerModelName = "Invented One"
    image.ImageType, image.SeriesDescription = list(series.image_type), series.description
    image.SeriesNumber, image.InstanceNumber, image.AcquisitionNumber = series.number, number, 1
    image.BodyPartExamined, image.PatientPosition = "ABDOMEN", "HFS"
    _set_identity(image, series.identity, study=series.study)
    return image


def _set_identity(image: FileDataset, identity: Identity, *, study: str) -> None:
    """What a hospital writes about a person: names, dates, free text, a private element."""
    image.PatientName, image.PatientID = identity.name, identity.patient_id
    image.PatientBirthDate, image.PatientSex = identity.birth_date, "O"
    image.InstitutionName, image.ReferringPhysicianName = identity.institution, identity.physician
    image.StudyDate, image.StudyTime, image.StudyID = "20240229", "081500", study
    image.AccessionNumber = f"ACC{identity.patient_id[-6:]}"
    image.StudyDescription = f"Abdomen, {identity.name.replace('^', ' ')}"
    block = image.private_block(PRIVATE_GROUP, "MEDSSL PHANTOMS", create=True)
    block.add_new(0x01, "LO", f"{identity.patient_id} {identity.name}")


def _set_geometry(image: FileDataset, volume: Volume, k: int) -> None:
    """Geometry of slice `k` (DICOM PS3.3 C.7.6.2): LPS, rows run along the second array axis."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine_ras_mm
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.ImageOrientationPatient = _numbers([*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])])
    image.ImagePositionPatient = _numbers(lps[:3, 3] + k * lps[:3, 2])
    image.PixelSpacing = _numbers([spacing[1], spacing[0]])
    image.SliceThickness = _numbers([spacing[2]])[0]


def _numbers(values: npt.ArrayLike) -> list[str]:
    return [format_number_as_ds(float(value) + 0.0) for value in np.round(np.asarray(values, dtype=float), 9)]


def _set_pixels(image: FileDataset, stored: npt.NDArray[np.uint16]) -> None:
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = stored.shape
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = stored.astype("<u2").tobytes()
