"""The three layers in a row, for tests: a folder of DICOM files to rows, load plans and volumes."""

from pathlib import Path

import numpy as np
from written_dicom import Series

from medssl.archive.index.load_plan import LoadPlan
from medssl.archive.index.planned_scan import manifest_row
from medssl.archive.limits import Limits
from medssl.archive.plan.dicom import plan_series
from medssl.archive.privacy.pseudonyms import Pseudonyms
from medssl.archive.scan.recognise import scan_file
from medssl.archive.series.assemble import Rules
from medssl.archive.sources.walk import walk
from medssl.archive.voxels.scan import load_planned_scan
from medssl.cohort.manifest import ManifestRow
from medssl.geometry import Volume

LIMITS = Limits(field_of_view_mm=5.0)
KEY = Pseudonyms(bytes(range(32)))


def planned(folder: Path, **rules) -> list[tuple[ManifestRow, LoadPlan | None]]:
    """Rows before loading, and load plans, of all series under a folder."""
    files = [
        scan_file(found.path / name, folder, stamp, limits=LIMITS)
        for found in walk(folder)
        for name, stamp in found.files.items()
    ]
    assert all(file.kind == "dicom" for file in files), [(file.path.name, file.reason, file.detail) for file in files]
    chosen = Rules(**{"min_slices": 3, "limits": LIMITS} | rules)
    return [
        (manifest_row(scan.planned, None, split="train", dataset=""), scan.load_plan)
        for series in sorted({file.series for file in files})
        for scan in plan_series(series, [file for file in files if file.series == series], KEY, chosen)
    ]


def accepted(folder: Path, **rules) -> list[tuple[ManifestRow, Volume]]:
    return [
        (row, load_planned_scan(plan, limits=LIMITS).volume)
        for row, plan in planned(folder, **rules)
        if plan is not None
    ]


def reasons(folder: Path, **rules) -> list[str]:
    return sorted(row.reason for row, plan in planned(folder, **rules) if plan is None)


def assert_is(volume: Volume, series: Series, slices: slice = slice(None)) -> None:
    """The volume is the series' slices, voxel for voxel, or the same read from the other end."""
    expected = series.physical[:, :, slices]
    affine = series.affine_ras_mm @ np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, (slices.start or 0)], [0, 0, 0, 1.0]]
    )
    if float(series.step_mm @ np.cross(series.row, series.column)) < 0:
        expected = expected[:, :, ::-1]
        affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, expected.shape[2] - 1], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(volume.voxels, expected, rtol=1e-6)
    np.testing.assert_allclose(volume.affine_ras_mm, affine, atol=1e-4)
