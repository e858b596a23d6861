"""What of a cohort must be the same however it came about."""

from pathlib import Path


def cohort_bytes(cohort: Path) -> dict[str, bytes]:
    """Manifest and store, byte for byte, with whatever else lies in the store."""
    paths = (cohort / "manifest.parquet", *(cohort / "store").iterdir())
    return {path.name: path.read_bytes() for path in paths}
