"""The nnU-Net checkpoint: the contract of its loaders, and equality with nnU-Net's own network."""

import json
import pydoc

import pytest
import torch
from small_networks import SIZES, encoder_of, stirred

from medssl.exchange.export import export
from medssl.exchange.nnunet import network_weights
from medssl.exchange.trained_model import TrainedModel, open_trained_model

ANISOTROPIC = {
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    "kernel_size": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
}


def read(folder):
    return torch.load(folder / "checkpoint_final.pth", weights_only=True, map_location="cpu")


def nnunet_network(plan, classes):
    """From the architecture in the plans to a network, as nnU-Net goes (utilities/get_network_from_plans.py)."""
    architecture = plan["architecture_plans"]
    cls = pydoc.locate(architecture["arch_class_name"])
    arguments = dict(architecture["arch_kwargs"])
    for key in architecture["arch_kwargs_requiring_import"]:
        arguments[key] = pydoc.locate(arguments[key]) if arguments[key] is not None else None
    return cls(plan["pretrain_num_input_channels"], num_classes=classes, deep_supervision=False, **arguments)


def test_nnunet_file_has_every_key_nnunet_reads(pretrained, tmp_path):
    run, _, _ = pretrained()
    out = export(run, tmp_path / "out", form="nnunet").folder
    checkpoint = read(out)
    plan = checkpoint["nnssl_adaptation_plan"]
    # The keys that nnU-Net 2.8 takes without a default (like_nnssl.py, pretrainedTrainer.py).
    assert {
        "architecture_plans",
        "pretrain_plan",
        "pretrain_num_input_channels",
        "recommended_downstream_patchsize",
        "key_to_encoder",
        "key_to_stem",
        "keys_to_in_proj",
        "key_to_lpe",
    } <= set(plan)
    assert {"arch_class_name", "arch_kwargs", "arch_kwargs_requiring_import"} == set(plan["architecture_plans"])
    (configuration,) = plan["pretrain_plan"]["configurations"].values()
    assert configuration["patch_size"] == list(SIZES["dynunet"][1])
    assert configuration["spacing"] is None
    assert isinstance(checkpoint["citations"], list)
    assert json.loads((out / "adaptation_plan.json").read_text()) == {**plan, "trainer_name": "medssl"}


def test_nnunet_network_gives_the_same_output(finetuned, tmp_path):
    pytest.importorskip("dynamic_network_architectures")
    run, network = finetuned()
    checkpoint = read(export(run, tmp_path / "out", form="nnunet").folder)
    theirs = nnunet_network(checkpoint["nnssl_adaptation_plan"], classes=3)
    theirs.load_state_dict(checkpoint["network_weights"])  # strict: every key, aliases included
    image = torch.randn(2, 1, *SIZES["dynunet"][1])
    with torch.no_grad():
        assert torch.equal(theirs.eval()(image), network(image))


@pytest.mark.parametrize("decoder", [True, False])
def test_nnunet_encoder_is_exact_for_anisotropic_voxels(pretrained, tmp_path, decoder):
    pytest.importorskip("dynamic_network_architectures")
    run, encoder, _ = pretrained(decoder=decoder, **ANISOTROPIC)
    done = export(run, tmp_path / "out", form="nnunet")
    checkpoint = read(done.folder)
    theirs = nnunet_network(checkpoint["nnssl_adaptation_plan"], classes=2)
    theirs.load_state_dict(checkpoint["network_weights"])
    image = torch.randn(2, 1, *SIZES["dynunet"][1])
    with torch.no_grad():
        for ours, other in zip(encoder.eval()(image), theirs.eval().encoder(image), strict=True):
            assert torch.equal(ours, other)
        assert torch.isfinite(theirs(image)).all()
    assert any("decoder" in note and "freshly initialised" in note for note in done.notes)


def test_nnunet_loader_finds_every_tensor(pretrained, tmp_path):
    """`-pretrained_weights` insists on every key but the segmentation layers, whatever the classes."""
    pytest.importorskip("dynamic_network_architectures")
    run, _, _ = pretrained(decoder=False)
    checkpoint = read(export(run, tmp_path / "out", form="nnunet").folder)
    for key, tensor in nnunet_network(checkpoint["nnssl_adaptation_plan"], classes=7).state_dict().items():
        if ".seg_layers." not in key:
            assert checkpoint["network_weights"][key].shape == tensor.shape, key


def test_nnunet_plan_names_modules_of_network(pretrained, tmp_path):
    pytest.importorskip("dynamic_network_architectures")
    from dynamic_network_architectures.architectures.abstract_arch import test_submodules_loadable as submodules_load

    run, _, _ = pretrained(decoder=False)
    plan = read(export(run, tmp_path / "out", form="nnunet").folder)["nnssl_adaptation_plan"]
    network = nnunet_network(plan, classes=2)
    network.key_to_encoder, network.key_to_stem = plan["key_to_encoder"], plan["key_to_stem"]
    network.keys_to_in_proj = plan["keys_to_in_proj"]
    submodules_load(network)


def test_nnunet_plan_orders_spacing_by_axes(finetuned, tmp_path):
    run, _ = finetuned()
    plan = read(export(run, tmp_path / "out", form="nnunet").folder)["nnssl_adaptation_plan"]
    assert plan["pretrain_plan"]["configurations"]["medssl"]["spacing"] == [2.0, 1.5, 1.0]
    assert open_trained_model(run).spacing_mm == (2.0, 1.5, 1.0)


def test_nnunet_fresh_decoder_is_deterministic():
    encoder = encoder_of()
    torch.manual_seed(5)
    first, _ = network_weights(encoder, None)
    drawn = torch.rand(1)
    torch.manual_seed(6)
    second, _ = network_weights(encoder, None)
    assert all(torch.equal(first[key], second[key]) for key in first)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)


def test_nnunet_leaves_dropout_out_with_note(tmp_path):
    from medssl.exchange.nnunet import write_nnunet

    encoder = encoder_of(dropout=0.1)
    notes = write_nnunet(TrainedModel(encoder, stirred(encoder.make_decoder(2)), {}), tmp_path)
    assert any("dropout of 0.1" in note for note in notes)
