"""`python -m medssl_phantoms OUT`: write a phantom archive."""

import argparse
import sys
from pathlib import Path

from medssl_phantoms.archive import make_archive
from medssl_phantoms.tiny import make_tiny_archive


def main() -> int:
    """Write the archive that the arguments describe and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m medssl_phantoms", description="Write a small archive of synthetic patients."
    )
    parser.add_argument("out", type=Path, help="folder to write; must not exist or be empty")
    parser.add_argument("--seed", type=int, default=0, help="each seed gives other patients (default 0)")
    parser.add_argument(
        "--dicom-patients", type=int, default=4, help="patients with a CT and an MR study as DICOM (default 4)"
    )
    parser.add_argument("--nifti-cases", type=int, default=12, help="labelled scans as NIfTI (default 12)")
    parser.add_argument("--tiny", action="store_true", help="write the example of sample_data/tiny")
    arguments = parser.parse_args()
    if arguments.out.exists() and any(arguments.out.iterdir()):
        print(f"{arguments.out} is not empty. Name a new folder.", file=sys.stderr)
        return 2
    if arguments.tiny:
        summary = make_tiny_archive(arguments.out)
    else:
        summary = make_archive(
            arguments.out,
            seed=arguments.seed,
            dicom_patients=arguments.dicom_patients,
            nifti_cases=arguments.nifti_cases,
        )
    n_rejected = len(summary.rejected)
    print(f"{summary.accepted} scans of {summary.patients} synthetic patients, {n_rejected} series without a scan")
    print(summary.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
