"""Ingest without a pool, under a key of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medssl.archive.limits import Limits
from medssl.ingestion.archive_to_cohort import ingest
from medssl.ingestion.report import IngestReport
from medssl.ingestion.settings import IngestSettings
from medssl.progress import StageProgress

SMALL = Limits(field_of_view_mm=5.0)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "pseudonym.key"


@pytest.fixture
def run_ingest(tmp_path: Path, key_file: Path) -> Callable[..., IngestReport]:
    """ingest(source, ...) into tmp_path/cohort, in this process, for small scans."""

    def run(
        *sources: Path, out: Path | None = None, progress: StageProgress | None = None, **settings: Any
    ) -> IngestReport:
        given = {"workers": 0, "min_slices": 3, "limits": SMALL, "key_file": key_file} | settings
        return ingest(list(sources), out or tmp_path / "cohort", settings=IngestSettings(**given), progress=progress)

    return run
