"""The MONAI bundle: it parses, loads strictly, gives the run's outputs, and segments a scan as medssl does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import POLICY, SIZES

from medssl.exchange.export import export
from medssl.geometry import Volume, to_tensor_axes
from medssl.store.normalisation import normalisation_of
from medssl.store.policy import StorePolicy, to_native_grid, to_store_grid

# MONAI's LoadImage registers every reader that it has, and says so where a GPU codec is missing.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")


def parser_of(folder, name="inference.json"):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / name))
    parser.read_meta(str(folder / "configs" / "metadata.json"))
    parser["bundle_root"] = str(folder)
    parser["device"] = "$torch.device('cpu')"
    return parser


@pytest.fixture
def scripts(monkeypatch):
    """Lets a bundle's own scripts be imported, and forgets them afterwards."""

    def use(folder):
        monkeypatch.syspath_prepend(str(folder))
        for name in ("scripts", "scripts.transforms"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    yield use
    for name in ("scripts", "scripts.transforms"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", list(SIZES))
def test_bundle_network_equals_that_of_the_run(pretrained, tmp_path, name):
    run, encoder, decoder = pretrained(name)
    out = export(run, tmp_path / "out", form="monai-bundle").folder
    parser = parser_of(out)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(out / "models" / "model.pt", weights_only=True))
    image = torch.randn(2, 1, *SIZES[name][1])
    rounding = 1e-5 if name == "vit" else 0.0  # torch's attention and MONAI's sum in another order
    with torch.no_grad():
        pyramid = encoder.eval()(image)
        assert torch.allclose(network.eval()(image), decoder.eval()(pyramid, image), rtol=rounding, atol=rounding)
        features = parser.get_parsed_content("encoder")
        parser.get_parsed_content("load")
        assert torch.allclose(features(image), pyramid[-1], rtol=rounding, atol=rounding)


def test_bundle_entries_can_be_built(finetuned, tmp_path, scripts):
    run, _ = finetuned()
    path, _ = phantom(tmp_path)
    for kind in ("images", "labels"):
        shutil.copytree(path.parent, path.parent / kind, ignore=shutil.ignore_patterns("images", "labels"))
    out = export(run, tmp_path / "out", form="monai-bundle").folder
    scripts(out)
    for name in ("inference.json", "train.json"):
        parser = parser_of(out, name)
        parser["dataset_dir"] = str(path.parent)
        for key in json.loads((out / "configs" / name).read_text()):
            if key not in ("evaluator", "trainer", "run", "finalize"):  # these need pytorch-ignite
                parser.get_parsed_content(key)


def test_bundle_metadata_passes_monais_check(pretrained, tmp_path, monkeypatch):
    from monai.bundle import verify_net_in_out

    run, _, _ = pretrained("segresnet")
    out = export(run, tmp_path / "out", form="monai-bundle").folder
    metadata = json.loads((out / "configs" / "metadata.json").read_text())
    # docs/source/mb_specification.rst, "metadata.json"
    required = "version monai_version pytorch_version numpy_version required_packages_version task description authors"
    assert {*required.split(), "copyright", "network_data_format"} <= set(metadata)
    assert metadata["network_data_format"]["outputs"]["latent"]["num_channels"] == 32
    monkeypatch.chdir(out)
    verify_net_in_out(
        net_id="network_def",
        meta_file="configs/metadata.json",
        config_file="configs/inference.json",
        device="cpu",
        n=8,
        p=1,
        any=16,
    )


def phantom(tmp_path):
    """A bright ellipsoid in noise, in an oblique-free LPS file of unequal edges and spacings.

    Returns its path and volume.
    """
    import nibabel as nib

    shape = (26, 30, 18)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, edge) for edge in shape], indexing="ij"))
    voxels = np.random.default_rng(0).normal(40, 8, shape) + 400 * ((grid**2).sum(0) < 0.5)
    affine = np.diag([-1.2, -1.2, 2.4, 1.0])
    affine[:3, 3] = [12.0, 20.0, -7.0]
    path = tmp_path / "data" / "scan.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), path)
    return path, Volume(np.asarray(nib.load(path).dataobj), affine)


@pytest.mark.parametrize(
    ("modality", "trained_on"), [("MR", ["MR"]), ("CT", ["CT"]), ("MR", ["CT", "MR"]), ("CT", ["CT", "MR"])]
)
def test_bundle_segments_as_medssl_does(finetuned, tmp_path, scripts, modality, trained_on):
    """Same orientation, intensities, windows and way back.

    Only the resampling to the store's spacing is each library's own.
    """
    from medssl.downstream.segmentation import predict_labels

    native = {**POLICY, "other_spacing_mm": "native"}
    run, network = finetuned(store_policy=native, modalities=trained_on)
    out = export(run, tmp_path / "out", form="monai-bundle").folder
    path, volume = phantom(tmp_path)
    scripts(out)
    parser = parser_of(out)
    parser["dataset_dir"] = str(path.parent)
    parser["output_dir"] = str(tmp_path / "eval")
    if len(trained_on) > 1:
        parser["modality"] = modality
    parser.get_parsed_content("load")
    sample = parser.get_parsed_content("dataset")[0]
    stored = to_store_grid(volume, policy=StorePolicy.model_validate(native), modality=modality)
    normalisation = normalisation_of(stored, modality)
    image = torch.from_numpy(normalisation.apply(to_tensor_axes(stored.voxels)))
    expected = predict_labels(
        network, image, patch=SIZES["dynunet"][1], overlap=0.25, pad_value=float(normalisation.pad_value)
    )
    with torch.no_grad():
        network_of_bundle = parser.get_parsed_content("network").eval()
        sample["pred"] = parser.get_parsed_content("inferer")(sample["image"][None], network_of_bundle)[0]
    done = parser.get_parsed_content("postprocessing")(sample)
    ours = to_native_grid(expected.numpy(), stored.affine_ras_mm, volume, nearest=True)
    theirs = done["pred"][0].numpy()
    assert len(np.unique(ours)) > 1
    assert (ours == theirs).mean() > 0.999
    import nibabel as nib

    (saved,) = (tmp_path / "eval").glob("*_labels.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(saved).dataobj).squeeze(), theirs)
    np.testing.assert_allclose(nib.load(saved).affine, volume.affine_ras_mm, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("trained_on", [["MR"], ["CT", "MR"]], ids="-".join)
def test_bundle_readme_command_runs(finetuned, tmp_path, trained_on):
    run, _ = finetuned(modalities=trained_on)
    out = export(run, tmp_path / "out", form="monai-bundle").folder
    path, _ = phantom(tmp_path)
    path.parent.rename(out / "data")
    command = next(line for line in (out / "docs" / "README.md").read_text().splitlines() if "inference.json" in line)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=out, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "eval" / "scan_labels.nii.gz").is_file()


def test_bundle_of_two_modalities_asks_for_one(finetuned, tmp_path, scripts):
    run, _ = finetuned(modalities=["CT", "MR"])
    done = export(run, tmp_path / "out", form="monai-bundle")
    scripts(done.folder)
    parser = parser_of(done.folder)
    with pytest.raises(RuntimeError) as refused:
        parser.get_parsed_content("preprocessing")
    reason = "the network was trained on CT and MR, and the modality of these scans is not given"
    assert reason in str(refused.value.__cause__)
    metadata = json.loads((done.folder / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["modality"] == "CT or MR"
    assert "inference.json --modality CT\n" in (done.folder / "docs" / "README.md").read_text()
    assert any("--modality" in note for note in done.notes)


@pytest.mark.parametrize("modality", ["MR", "CT", None])
@pytest.mark.parametrize("kind", ["noise", "constant", "large"])
def test_bundle_normalisation_equals_that_of_store(modality, kind):
    from medssl.exchange.bundle_transforms import NormalizeScand

    generator = np.random.default_rng(1)
    shape = (140, 130, 120) if kind == "large" else (11, 12, 13)
    voxels = np.full(shape, 7.0, np.float32) if kind == "constant" else generator.gamma(2, 90, shape).astype(np.float32)
    out = NormalizeScand(["image"], modality=modality)({"image": torch.from_numpy(voxels)[None]})["image"]
    expected = normalisation_of(Volume(voxels, np.eye(4)), modality or "MR").apply(voxels)
    np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_bundle_trains_and_predicts_under_ignite(finetuned, tmp_path, scripts):
    import nibabel as nib

    run, _ = finetuned()
    out = export(run, tmp_path / "out", form="monai-bundle").folder
    path, volume = phantom(tmp_path)
    for kind, voxels in (("images", volume.voxels), ("labels", (volume.voxels > 200).astype(np.uint8))):
        (path.parent / kind).mkdir()
        nib.save(nib.Nifti1Image(voxels, volume.affine_ras_mm), path.parent / kind / "a.nii.gz")
    scripts(out)
    parser = parser_of(out, "train.json")
    parser["dataset_dir"], parser["epochs"] = str(path.parent), 1
    for key in ("initialize", "run", "finalize"):
        parser.get_parsed_content(key)
    assert (out / "models" / "finetuned.pt").is_file()
    inference = parser_of(out)
    inference["dataset_dir"], inference["output_dir"] = str(path.parent / "images"), str(tmp_path / "eval")
    for key in ("initialize", "run"):
        inference.get_parsed_content(key)
    assert (tmp_path / "eval" / "a_labels.nii.gz").is_file()


@pytest.mark.parametrize("name", ["dynunet", "vit"])
def test_bundle_of_encoder_writes_features(pretrained, tmp_path, scripts, name):
    run, _, _ = pretrained(name, decoder=False)
    out = export(run, tmp_path / "out", form="monai-bundle").folder
    path, _ = phantom(tmp_path)
    scripts(out)
    parser = parser_of(out)
    parser["dataset_dir"], parser["output_dir"] = str(path.parent), str(tmp_path / "eval")
    for key in ("initialize", "run"):
        parser.get_parsed_content(key)
    assert (tmp_path / "eval" / "scan_features.nii.gz").is_file()
