"""Attempts that broke off: no volume is made of slices of two, and the complete ones are found before and after."""

import numpy as np
import pytest
from planned_scans import accepted, reasons
from written_dicom import Series, random_voxels, save

N = 12
UP, DOWN = list(range(N)), list(range(N))[::-1]
ODD = [*range(0, N, 2), *range(1, N, 2)]
FIRST = [*range(1, N, 2), *range(0, N, 2)]


def taken(folder, *attempts: list[int], edit=lambda ds, number, attempt: None) -> None:
    """Attempts one after the other under one series, each a list of slices in the order in which they were taken; the
    first voxel of a slice holds the number of its attempt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    uids = Series(random_voxels())
    for attempt, places in enumerate(attempts, start=1):
        voxels = np.full((14, 11, N), attempt, np.uint16)
        voxels[7:] += 1000
        series = Series(voxels, intercept=0.0, series_uid=uids.series_uid, study_uid=uids.study_uid)
        for place in places:
            number += 1
            ds = series.dataset(place)
            ds.InstanceNumber = number
            edit(ds, number, attempt)
            save(ds, folder / f"{number}")


def attempts_of(folder) -> list[list[int]]:
    """Which attempt each slice of each accepted scan comes from."""
    return [volume.voxels[0, 0].astype(int).tolist() for _, volume in accepted(folder)]


@pytest.mark.parametrize("path", [UP, DOWN, ODD, FIRST], ids=["up", "down", "odd", "first"])
@pytest.mark.parametrize(
    ("attempts", "complete"),
    [
        ((5, N), [2]),
        ((N, 5), [1]),
        ((5, N, N), [2, 3]),
        ((N, 5, N), [1, 3]),
        ((3, 5, N), [3]),
        ((5, N, 3), [2]),
        ((11, N), [2]),
        ((N, N, 1), [1, 2]),
    ],
)
def test_aborted_attempts_yield_complete_volumes(tmp_path, path, attempts, complete):
    taken(tmp_path, *(path[:count] for count in attempts))
    assert attempts_of(tmp_path) == [[number] * N for number in complete]
    assert all("F_RAGGED_4D" in row.flags for row, _ in accepted(tmp_path))
    assert reasons(tmp_path) == ["INCOMPLETE_4D"]


def test_lost_slice_costs_only_its_volume(tmp_path):
    taken(tmp_path, UP, [place for place in UP if place != 5], UP)
    assert attempts_of(tmp_path) == [[1] * N, [3] * N]


def test_acquisition_times_separate_attempts(tmp_path):
    def edit(ds, number, attempt):
        ds.InstanceNumber, ds.ContentTime = number if attempt == 1 else number - 5, f"1200{number:02d}"

    taken(tmp_path, UP[:5], UP, edit=edit)
    assert attempts_of(tmp_path) == [[2] * N]


@pytest.mark.parametrize(
    "attempts",
    [
        (UP[:5], DOWN),
        (UP[1:], UP[:3], [0, *UP[4:]]),
        ([*UP[:9], 5], UP[9:]),
        (ODD, ODD[: N // 2]),
    ],
    ids=["the other way round", "pieces", "one slice again on the way", "one pass of two"],
)
def test_ambiguous_attempts_are_not_mixed(tmp_path, attempts):
    taken(tmp_path, *attempts)
    assert attempts_of(tmp_path) == []
    assert reasons(tmp_path) == ["INCOMPLETE_4D"]


def test_instance_numbers_unrelated_to_time_are_ignored(tmp_path):
    taken(tmp_path, UP[:5], UP, edit=lambda ds, number, attempt: setattr(ds, "InstanceNumber", 1 + (number - 1) % 7))
    assert attempts_of(tmp_path) == []
