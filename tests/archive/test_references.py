"""Every reference NIfTI of the real sets is reproduced: voxels exact after rescaling, affine within 1e-3 mm.

The references were made with dcm2niix (see ../shared/data/README.md), which shares no code with medssl.
"""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medssl.archive.limits import Limits
from medssl.archive.plan.dicom import plan_series
from medssl.archive.privacy.pseudonyms import ephemeral_pseudonyms
from medssl.archive.scan.recognise import scan_file
from medssl.archive.series.assemble import Rules
from medssl.archive.sources.walk import walk
from medssl.archive.voxels.scan import load_planned_scan
from medssl.geometry import Volume, to_ras

EVERYTHING = Rules(min_slices=1, include_derived=True, volumes_per_series=1000)
AFFINE_MM = 1e-3


def scans_in(path: Path) -> list[Volume]:
    """All scans under a folder, straight through the three layers."""
    files = [
        scan_file(folder.path / name, path, stamp, limits=Limits())
        for folder in walk(path)
        for name, stamp in folder.files.items()
    ]
    found = []
    for series in sorted({file.series for file in files if file.kind == "dicom"}):
        for scan in plan_series(
            series, [file for file in files if file.series == series], ephemeral_pseudonyms(), EVERYTHING
        ):
            if scan.load_plan is not None:
                found.append(to_ras(load_planned_scan(scan.load_plan, limits=Limits()).volume))
            else:
                assert scan.planned.reason in ("DERIVED", "LOCALIZER")
    return found


def reference(path: Path, *, scaled: bool = True) -> list[Volume]:
    image = nibabel.load(path)
    data = np.asanyarray(image.dataobj) if scaled else image.dataobj.get_unscaled()
    data = data if data.ndim == 4 else data[..., None]
    return [to_ras(Volume(data[..., t], image.affine)) for t in range(data.shape[3])]


def assert_reproduced(scans: list[Volume], path: Path) -> None:
    for expected in reference(path):
        same = [scan for scan in scans if scan.shape == expected.shape and np.array_equal(scan.voxels, expected.voxels)]
        assert len(same) >= 1, f"no scan has the voxels of {path.name}"
        np.testing.assert_allclose(same[0].affine_ras_mm, expected.affine_ras_mm, atol=AFFINE_MM)


@pytest.mark.parametrize("number", range(1, 10))
def test_image_is_same_in_every_transfer_syntax(real_data, number):
    folder = real_data / "dicom" / "dcm_qa_ts"
    scans = scans_in(folder / "In" / f"{number}.dcm")
    assert len(scans) == 1
    assert_reproduced(scans, folder / "Ref" / f"{number}.nii")


@pytest.mark.parametrize(
    ("name", "ref"), [("12bitUnsigned", 2), ("12bitUnsigned_0x0F0F", 3), ("12bitSigned_0x0F0F", 4)]
)
def test_twelve_bit_values_are_masked_and_sign_extended(real_data, name, ref):
    folder = real_data / "dicom" / "dcm_qa_12bit"
    assert_reproduced(scans_in(folder / "In" / f"{name}.dcm"), folder / "Ref" / f"{ref}.nii")


@pytest.mark.parametrize("name", ["dcm_qa_nih", "dcm_qa_me"])
def test_series_with_several_volumes_match_reference(real_data, name):
    folder = real_data / "dicom" / name
    scans = scans_in(folder / "In")
    references = sorted((folder / "Ref").glob("*.nii"))
    for path in references:
        assert_reproduced(scans, path)
    assert len(scans) == sum(len(reference(path)) for path in references)


def test_enhanced_time_series_matches_reference(real_data):
    folder = real_data / "dicom" / "dcm_qa_enh"
    scans = scans_in(folder / "In" / "Siemens")
    assert len(scans) == 4
    assert_reproduced(scans, folder / "Ref" / "Siemens_REST1_w_SMS_PF7-8_6.nii")


def test_enhanced_magnitude_and_phase_are_separated(real_data):
    """dcm2niix applies Philips' private precise scale, medssl the display scale: the stored numbers must agree."""
    folder = real_data / "dicom" / "dcm_qa_enh"
    scans = scans_in(folder / "In" / "Philips")
    assert len(scans) == 2
    for name in ("Philips_WIP_B0_NS_801_e1.nii", "Philips_WIP_B0_NS_801_e2_fieldmaphz.nii"):
        (stored,) = reference(folder / "Ref" / name, scaled=False)
        fits = []
        for scan in scans:
            np.testing.assert_allclose(scan.affine_ras_mm, stored.affine_ras_mm, atol=AFFINE_MM)
            slope, intercept = np.polyfit(stored.voxels.ravel(), scan.voxels.ravel(), 1)
            fits.append(float(np.abs(stored.voxels * slope + intercept - scan.voxels).max() / np.ptp(scan.voxels)))
        assert min(fits) < 1e-5 < 1e-2 < max(fits)


def test_jpeg_2000_ct_matches_grid_of_segmentation(real_data):
    folder = real_data / "dicom" / "body_ct"
    (scan,) = scans_in(folder / "In")
    label = nibabel.load(folder / "Ref" / "example_seg_dicom.nii.gz")
    label = to_ras(Volume(np.asanyarray(label.dataobj), label.affine))
    assert scan.shape == label.shape
    np.testing.assert_allclose(scan.affine_ras_mm, label.affine_ras_mm, atol=AFFINE_MM)
    assert scan.voxels.min() == -1024
    organs, air = scan.voxels[label.voxels > 0], scan.voxels[label.voxels == 0]
    assert np.median(organs) > 0 > np.median(air)
