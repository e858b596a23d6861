"""Contact sheets: one window per case, labels in fixed colours, small scans large enough to see."""

import numpy as np
import pytest

from medssl.runs.contact_sheet import contact_sheet


def ramp(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 12 * 16 * 20, dtype=np.float32).reshape(12, 16, 20)


def test_contact_sheet_grows_with_rows_and_columns():
    one = contact_sheet([{"scan": ramp(-1, 1)}])
    four = contact_sheet([{"scan": ramp(-1, 1), "guess": ramp(-1, 1)}] * 2)
    assert one.dtype == np.uint8
    assert one.shape[2] == 3
    assert four.shape[0] > one.shape[0]
    assert four.shape[1] > one.shape[1]


def test_contact_sheet_columns_share_window():
    scan = ramp(0.0, 1.0)
    brighter = contact_sheet([{"scan": scan, "guess": scan + 100.0}])
    same = contact_sheet([{"scan": scan, "guess": scan}])
    # a guess far above the scan's window is white, not rescaled to look like the scan
    assert brighter.astype(int).sum() > same.astype(int).sum()
    assert not np.array_equal(brighter, same)


def test_contact_sheet_colours_labels_only():
    label = np.zeros((12, 16, 20), np.int64)
    label[:, 4:12, 5:15] = 1

    def colourful(sheet: np.ndarray) -> bool:
        return bool((sheet.max(axis=2).astype(int) - sheet.min(axis=2) > 60).any())

    assert colourful(contact_sheet([{"scan": ramp(0, 1), "label": label}]))
    assert not colourful(contact_sheet([{"scan": ramp(0, 1)}]))


def test_contact_sheet_takes_values_that_are_not_finite():
    scan = ramp(0, 1)
    scan[0, 0, 0] = np.nan
    scan[5, 5, 5] = np.inf
    assert contact_sheet([{"scan": scan}]).size > 0


def test_contact_sheet_refuses_no_rows():
    with pytest.raises((ValueError, IndexError)):
        contact_sheet([])
