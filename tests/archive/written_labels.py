"""DICOM label objects with a known answer: segmentations by highdicom and bit by bit, structure sets by pydicom."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from written_dicom import Series, save

SEGMENTATION, STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"


def written(series: Series, folder: Path, edit: Callable[[Dataset, int], None] | None = None) -> list[Dataset]:
    """Write a series and keep its datasets, in the order of the voxels' third axis."""
    kept: list[Dataset] = []

    def keep(ds: Dataset, k: int) -> None:
        ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ds.StudyDate = ds.StudyTime = ds.StudyID = ""
        ds.AccessionNumber = ds.ReferringPhysicianName = ""
        ds.SliceThickness = 4.0
        if edit is not None:
            edit(ds, k)
        kept.append(ds)

    series.write(folder, keep)
    return kept


def highdicom_segmentation(
    images: Sequence[Dataset], masks: np.ndarray, names: Sequence[str], **options: Any
) -> Dataset:
    """A segmentation of masks (X, Y, Z, segments), or of label values (X, Y, Z)."""
    from highdicom.seg import Segmentation, SegmentDescription

    kinds = options.pop("kinds", [codes.SCT.Organ] * len(names))
    described = [
        SegmentDescription(number, name, codes.SCT.AnatomicalStructure, kind, "MANUAL")
        for number, (name, kind) in enumerate(zip(names, kinds, strict=True), start=1)
    ]
    planes = np.moveaxis(masks, (0, 1, 2), (2, 1, 0))  # (Z, Y, X, ...)
    given = {"segmentation_type": "BINARY", "segment_descriptions": described} | options
    return Segmentation(
        source_images=list(images),
        pixel_array=np.ascontiguousarray(planes),
        series_instance_uid=generate_uid(),
        series_number=7,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **given,
    )


def plain_object(sop_class: str, images: Sequence[Dataset], *, modality: str, created: str = "20200101") -> Dataset:
    """What every label object says, with the series it refers to."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.Modality, ds.PatientID, ds.StudyInstanceUID = modality, images[0].PatientID, images[0].StudyInstanceUID
    ds.SeriesInstanceUID, ds.FrameOfReferenceUID = generate_uid(), images[0].FrameOfReferenceUID
    ds.ContentDate, ds.ContentTime = created, "120000"
    return ds


def instances(images: Sequence[Dataset]) -> Items:
    """Items that refer to images."""
    found = []
    for image in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        found.append(item)
    return Items(found)


def segmentation(
    images: Sequence[Dataset],
    frames: Sequence[tuple[int, np.ndarray, Sequence[float]]],
    names: Sequence[str],
    *,
    orientation: Sequence[float],
    spacing_mm: Sequence[float],
    created: str = "20200101",
) -> Dataset:
    """A binary segmentation, bit by bit. frames: (segment, mask (rows, columns), position LPS mm), in any order."""
    ds = plain_object(SEGMENTATION, images, modality="SEG", created=created)
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = images[0].SeriesInstanceUID, instances(images)
    ds.ReferencedSeriesSequence = Items([series])
    ds.SegmentationType, ds.NumberOfFrames = "BINARY", len(frames)
    ds.Rows, ds.Columns = frames[0][1].shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, 1, 0
    ds.SegmentSequence = Items([_segment(number, name) for number, name in enumerate(names, start=1)])
    ds.SharedFunctionalGroupsSequence = Items([_shared(orientation, spacing_mm)])
    ds.PerFrameFunctionalGroupsSequence = Items([_frame(segment, place) for segment, _, place in frames])
    bits = np.concatenate([mask.astype(bool).ravel() for _, mask, _ in frames])
    packed = np.packbits(bits, bitorder="little").tobytes()
    ds.PixelData = packed + b"\0" * (len(packed) % 2)
    ds["PixelData"].VR = "OB"
    return ds


def structure_set(
    images: Sequence[Dataset],
    rois: Sequence[tuple[str, Sequence[np.ndarray]]],
    *,
    created: str = "20200101",
    kind: str = "CLOSED_PLANAR",
) -> Dataset:
    """Contours (n, 3) LPS mm of regions, numbered from 1 in their order."""
    ds = plain_object(STRUCTURE_SET, images, modality="RTSTRUCT", created=created)
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "s", created, "120000"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = images[0].SeriesInstanceUID, instances(images)
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = Items([series])
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = Items([study])
    ds.ReferencedFrameOfReferenceSequence = Items([frame])
    ds.StructureSetROISequence, ds.ROIContourSequence = Items(), Items()
    for number, (name, contours) in enumerate(rois, start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID, roi.ROIGenerationAlgorithm = images[0].FrameOfReferenceUID, ""
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = Items([_contour(points, kind) for points in contours])
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    return ds


def outline(series: Series, corners: Sequence[Sequence[float]], k: float) -> np.ndarray:
    """(n, 3) LPS mm of corners in voxels (i, j) on slice k."""
    points = np.array([[i, j, k, 1.0] for i, j in corners]) @ series.affine_ras_mm.T
    return points[:, :3] * (-1, -1, 1)


def put(ds: Dataset, path: Path) -> Path:
    """Write a label object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(ds, path)
    return path


def _segment(number: int, name: str) -> Dataset:
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel, item.SegmentAlgorithmType = number, name, "MANUAL"
    return item


def _shared(orientation: Sequence[float], spacing_mm: Sequence[float]) -> Dataset:
    group, plane, measures = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = [f"{value:.12g}" for value in orientation]
    measures.PixelSpacing = [f"{value:.9g}" for value in spacing_mm[:2]]
    if len(spacing_mm) > 2:
        measures.SpacingBetweenSlices = f"{spacing_mm[2]:.9g}"
    group.PlaneOrientationSequence, group.PixelMeasuresSequence = Items([plane]), Items([measures])
    return group


def _frame(segment: int, position_mm: Sequence[float]) -> Dataset:
    group, place, shown = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [f"{value:.9g}" for value in position_mm]
    shown.ReferencedSegmentNumber = segment
    group.PlanePositionSequence, group.SegmentIdentificationSequence = Items([place]), Items([shown])
    return group


def _contour(points: np.ndarray, kind: str) -> Dataset:
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    text = "\\".join(f"{value:.8g}" for value in points.ravel())
    item.add_new(0x30060050, "DS" if np.isfinite(points).all() else "UT", text)
    return item
