"""Small, seeded scans of synthetic patients: as volumes, and as an archive of DICOM series and labelled NIfTI.

Of medssl this package imports `medssl.geometry` only.
"""

from medssl_phantoms.anatomy import LABELS
from medssl_phantoms.archive import ArchiveSummary, labelled_case, make_archive, write_nifti
from medssl_phantoms.scanners import Grid, ct_phantom, mr_phantom

__all__ = [
    "LABELS",
    "ArchiveSummary",
    "Grid",
    "ct_phantom",
    "labelled_case",
    "make_archive",
    "mr_phantom",
    "write_nifti",
]
