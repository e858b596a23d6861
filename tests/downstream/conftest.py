"""A small ingested cohort: oblique, anisotropic phantoms with two classes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.ingestion.archive_to_cohort import ingest
from medssl.ingestion.settings import IngestSettings

SHAPE = (20, 26, 18)


def oblique_affine() -> np.ndarray:
    """Rotated by 20 degrees about z and 10 about x, spacing 1.0 x 1.2 x 1.5 mm, left-right flipped."""
    a, b = np.deg2rad(20), np.deg2rad(10)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-1.0, 1.2, 1.5])
    affine[:3, 3] = [10.0, -20.0, 30.0]
    return affine


def write_phantom(folder: Path, number: int) -> None:
    """images/case.nii.gz and labels/case.nii.gz: a bright box (1) beside a brighter one (2)."""
    draw = np.random.default_rng(number)
    x, y, z = draw.integers(3, 6, 3)
    label = np.zeros(SHAPE, np.uint8)
    label[x : x + 8, y : y + 8, z : z + 8] = 1
    label[x : x + 8, y + 9 : y + 16, z : z + 8] = 2
    scan = (100 + 150 * label + draw.normal(0, 10, SHAPE)).astype(np.int16)
    for kind, array in (("images", scan), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, oblique_affine()), folder / kind / f"case{number:02d}.nii.gz")


@dataclass(frozen=True)
class SmallArchive:
    """scans: folder of images and labels. cohort: what ingest made of it; 8 training and 3 test scans, all labelled."""

    scans: Path
    cohort: Path


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    folder = tmp_path_factory.mktemp("archive")
    for number in range(11):
        write_phantom(folder / "scans", number)
    rows = [f"case{n:02d}.nii.gz,{'test' if n >= 8 else 'train'}" for n in range(11)]
    (folder / "splits.csv").write_text("\n".join(["file,split", *rows]))
    (folder / "key").write_text("ab" * 32)
    (folder / "key").chmod(0o600)
    archive = SmallArchive(folder / "scans", folder / "cohort")
    ingest([archive.scans / "images"], archive.cohort, settings=settings_of(archive))
    return archive


@pytest.fixture(scope="session")
def untested_cohort(small_archive: SmallArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three phantoms, labelled, all of them for training."""
    folder = tmp_path_factory.mktemp("untested")
    for number in range(3):
        write_phantom(folder, number)
    (folder / "splits.csv").write_text("\n".join(["file,split", *(f"case{n:02d}.nii.gz,train" for n in range(3))]))
    own = {"splits": folder / "splits.csv", "labels": folder / "labels"}
    settings = settings_of(small_archive).model_copy(update=own)
    ingest([folder / "images"], folder / "cohort", settings=settings)
    return folder / "cohort"


def add_phantoms(archive: SmallArchive, cohort: Path, *, folder: Path, numbers: Iterable[int]) -> None:
    """Ingest further phantoms, made in `folder` and without labels, into a copy of the archive's cohort."""
    for number in numbers:
        write_phantom(folder, number)
    ingest([archive.scans / "images", folder / "images"], cohort, settings=settings_of(archive))


def settings_of(archive: SmallArchive) -> IngestSettings:
    files = {"splits": archive.scans.parent / "splits.csv", "key_file": archive.scans.parent / "key"}
    return IngestSettings(label_dir=archive.scans / "labels", workers=0, modality="MR", **files)
