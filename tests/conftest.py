"""Fixtures that every part of the suite shares."""

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans (../shared/data); the test skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"needs the real scans of {REAL_DATA}, which are not on this machine")
    return REAL_DATA
