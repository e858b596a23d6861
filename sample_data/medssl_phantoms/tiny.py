"""The example in sample_data/tiny."""

from pathlib import Path

from medssl_phantoms.archive import ArchiveSummary, make_archive


def make_tiny_archive(folder: Path) -> ArchiveSummary:
    """Write a patient as DICOM and three labelled scans as NIfTI, small enough for the repository."""
    return make_archive(folder, seed=7, dicom_patients=1, nifti_cases=3, shape=(32, 26, 22))
