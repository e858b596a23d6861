"""A small hospital archive: DICOM series with the clutter of real archives, and labelled NIfTI."""

import gzip
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from medssl.geometry import Volume
from medssl_phantoms.anatomy import stream
from medssl_phantoms.dicom_files import (
    Identity,
    Series,
    write_localizer,
    write_secondary_capture,
    write_series,
    write_truncated,
)
from medssl_phantoms.scanners import Grid, ct_phantom, mr_phantom

FAMILY_NAMES = (
    "Quillfeather", "Drosselmeier", "Vandersteen", "Okonjo-Bright", "Marchetti", "Halvorsen", "Zabriskie",
    "Thistlewood",
)  # fmt: skip
GIVEN_NAMES = ("Ottoline", "Casimir", "Philippa", "Barnabas", "Wilhelmina", "Ignatius", "Seraphina", "Leopold")
FIELD_MM = (284.0, 222.0, 214.0)  # left-right, front-back, feet-head
FIRST_NIFTI_PATIENT = 10_000  # DICOM patients count from 0, so that no patient is in both parts

# Time stamp of every file, 29 February 2024: an ingest leaves files alone that changed seconds ago.
WRITTEN_S = 1_709_193_600

T = TypeVar("T", int, float)


@dataclass(frozen=True)
class ArchiveSummary:
    """What `make_archive` wrote, and what an ingest of it must find.

    Attributes:
        folder: the archive.
        dicom: its folder with DICOM series.
        images: its folder with NIfTI scans.
        labels: its folder with label files.
        patients: number of patients in both parts.
        dicom_scans: number of DICOM scans that an ingest must accept.
        nifti_scans: number of NIfTI scans that an ingest must accept.
        rejected: an entry per DICOM series without a scan: localizer, secondary capture or truncated.
        planted: strings that must never leave the archive.
    """

    folder: Path
    dicom: Path
    images: Path
    labels: Path
    patients: int
    dicom_scans: int
    nifti_scans: int
    rejected: tuple[str, ...]
    planted: tuple[str, ...]

    @property
    def accepted(self) -> int:
        """Scans that an ingest must accept."""
        return self.dicom_scans + self.nifti_scans


def make_archive(
    folder: Path,
    *,
    seed: int = 0,
    dicom_patients: int = 4,
    nifti_cases: int = 12,
    shape: tuple[int, int, int] = (48, 40, 36),
    labels: bool = True,
) -> ArchiveSummary:
    """Write dicom/ by patient, study and series, images/ and labels/ with equal file names. Deterministic to the byte.

    Args:
        folder: where to write.
        seed: each seed gives other patients.
        dicom_patients: patients with a CT and an MR study as DICOM.
        nifti_cases: MR scans as NIfTI.
        shape: (X, Y, Z) of most scans in voxels; edges vary a little between scans.
        labels: whether to write label files of the NIfTI scans.
    """
    dicom, images, label_folder = folder / "dicom", folder / "images", folder / "labels"
    scans, rejected, planted = 0, list[str](), list[str]()
    for number in range(dicom_patients):
        identity = identity_of(seed, number)
        planted += identity.strings()
        n_scans, reasons = _write_patient(dicom, seed, number, identity=identity, shape=shape)
        scans, rejected = scans + n_scans, rejected + reasons
    for number in range(nifti_cases):
        image, label = labelled_case(seed, number, shape=shape)
        write_nifti(images / f"case_{number:03d}.nii.gz", image)
        if labels:
            write_nifti(label_folder / f"case_{number:03d}.nii.gz", label)
    for path in folder.rglob("*"):
        os.utime(path, (WRITTEN_S, WRITTEN_S))
    return ArchiveSummary(
        folder, dicom, images, label_folder, patients=dicom_patients + nifti_cases, dicom_scans=scans,
        nifti_scans=nifti_cases, rejected=tuple(rejected), planted=tuple(planted), )  # fmt: skip


def identity_of(seed: int, number: int) -> Identity:
    """The synthetic person with this number."""
    rng = stream(seed, 20, number)
    name = f"{FAMILY_NAMES[number % len(FAMILY_NAMES)]}^{GIVEN_NAMES[int(rng.integers(len(GIVEN_NAMES)))]}"
    born = f"{rng.integers(1935, 2005)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    patient_id = f"MRN{rng.integers(10**6, 10**7)}{number:03d}"
    return Identity(name, patient_id, born, "Saint Elsewhere Infirmary", "Grimsditch^Aurelius")


def labelled_case(seed: int, number: int, *, shape: tuple[int, int, int] = (48, 40, 36)) -> tuple[Volume, Volume]:
    """T1-like scan and label of one NIfTI case; every third one is oblique, and axes, spacing and edges differ."""
    rng = stream(seed, 21, number)
    patient = _patient(seed, FIRST_NIFTI_PATIENT + number)
    axes = str(rng.choice(["RAS", "LAS", "LPS"]))
    return mr_phantom(patient, grid=_grid(rng, shape, axes=axes, oblique=number % 3 == 2))


def write_nifti(path: Path, volume: Volume) -> None:
    """Compressed NIfTI with sform and qform; the same volume gives the same bytes."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume.voxels, volume.affine_ras_mm)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine_ras_mm, code=1)
    image.set_qform(volume.affine_ras_mm, code=1)
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def _patient(seed: int, number: int) -> int:
    return seed * 1_000_000 + number


def _grid(rng: Generator, shape: tuple[int, int, int], *, axes: str, oblique: bool, thickness: float = 1.0) -> Grid:
    """A random grid that covers about 280 x 220 x 215 mm (left-right, front-back, feet-head), off the trunk's middle.

    Args:
        rng: source of randomness.
        shape: voxels left-right, front-back and feet-head; each edge varies by up to two.
        axes: directions of the three array axes, as nibabel's axis codes.
        oblique: whether to rotate the grid.
        thickness: factor on the spacing along the last array axis.
    """
    across = ["LRAPSI".index(letter) // 2 for letter in axes]
    edges = [int(shape[a] + rng.integers(-2, 3)) for a in across]
    edges[2] = round(edges[2] / thickness)
    spacing = [
        float(np.round(FIELD_MM[a] / n * rng.uniform(0.96, 1.06), 3)) for a, n in zip(across, edges, strict=True)
    ]
    turn = rng.uniform(-9, 9, 3) * oblique
    shift = rng.uniform((-6, -5, -12), (6, 5, 12))
    return Grid(_three(edges, int), _three(spacing, float), axes, _three(turn, float), _three(shift, float))


def _three(values: Iterable[float], kind: type[T]) -> tuple[T, T, T]:
    x, y, z = (kind(value) for value in values)
    return x, y, z


def _write_patient(
    dicom: Path, seed: int, number: int, *, identity: Identity, shape: tuple[int, int, int]
) -> tuple[int, list[str]]:
    """Write a CT and an MR study of a patient; return the number of scans and a reason per series without one."""
    patient, rng = _patient(seed, number), stream(seed, 22, number)
    home = dicom / f"{identity.patient_id}_{identity.name.replace('^', '_')}"
    ct, _ = ct_phantom(patient, grid=_grid(rng, shape, axes="LPS", oblique=False))
    topogram = Series(identity, "ST1", 1, "CT", "Topogram", ("ORIGINAL", "PRIMARY", "LOCALIZER"))
    write_localizer(home / "ST1" / "SE1", ct, topogram)
    order = [int(k) for k in rng.permutation(ct.shape[2])] if number % 2 else None
    abdomen = Series(identity, "ST1", 2, "CT", f"Abdomen {identity.name[:4]}")
    write_series(home / "ST1" / "SE2", ct, abdomen, order=order)
    _write_mr(home / "ST2", patient, rng, identity=identity, shape=shape, coronal=number % 2 == 1)
    if number > 0:
        return 3, ["localizer"]
    write_secondary_capture(home / "ST1" / "SE8" / "IM000001", ct, Series(identity, "ST1", 8, "CT", "Screenshot"))
    write_truncated(home / "ST1" / "SE9" / "IM000001", ct, Series(identity, "ST1", 9, "CT", "Broken"))
    return 3, ["localizer", "secondary capture", "truncated"]


def _write_mr(
    study: Path, patient: int, rng: Generator, *, identity: Identity, shape: tuple[int, int, int], coronal: bool
) -> None:
    """An oblique T1-like series and a T2-like one with thicker slices, axial or coronal."""
    image_type = ("ORIGINAL", "PRIMARY", "M", "SE")
    t1, _ = mr_phantom(patient, grid=_grid(rng, shape, axes="LPS", oblique=True), contrast="T1")
    write_series(study / "SE3", t1, Series(identity, "ST2", 3, "MR", "T1 tra", image_type), suffix=".dcm")
    thick = _grid(rng, shape, axes="LIP" if coronal else "LPS", oblique=True, thickness=1.4)
    t2, _ = mr_phantom(patient, grid=thick, contrast="T2")
    write_series(study / "SE4", t2, Series(identity, "ST2", 4, "MR", "T2", image_type), suffix=".dcm")
