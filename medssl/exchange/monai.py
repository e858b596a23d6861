"""The same network under MONAI's own class: which class, with which arguments, holding the run's weights."""

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medssl.encoders.build import encoder_class
from medssl.encoders.encoder import EncoderDescription
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.transfer import TransferReport, check_forward_equality, transfer
from medssl.errors import ConfigError
from medssl.exchange.trained_model import TrainedModel

SEED = 0


@dataclass(frozen=True)
class Target:
    """A class of monai.networks.nets.

    Encoder: expression over `@network_def` that gives the encoder's coarsest features.
    """

    path: str
    module: str
    encoder: str


TARGETS = {
    "dynunet": Target(
        "monai.networks.nets.DynUNet",
        "medssl.encoders.dynunet",
        "$torch.nn.Sequential(@network_def.input_block, *@network_def.downsamples, @network_def.bottleneck)",
    ),
    "segresnet": Target(
        "monai.networks.nets.SegResNet",
        "medssl.encoders.segresnet",
        "$torch.nn.Sequential(@network_def.convInit, *@network_def.down_layers)",
    ),
    "swin-unetr": Target(
        "monai.networks.nets.SwinUNETR",
        "medssl.encoders.swin_unetr",
        "$lambda image: @network_def.swinViT(image)[-1]",
    ),
    "vit": Target(
        "monai.networks.nets.UNETR",
        "medssl.encoders.vit",
        "$lambda image: @network_def.proj_feat(@network_def.vit(image)[0])",
    ),
}


def monai_target(description: EncoderDescription) -> Target:
    """The MONAI class of an encoder. Raises ConfigError for an encoder that MONAI does not have."""
    reason = not_in_monai(description)
    if reason is not None:
        raise ConfigError(
            f"{reason}, so it cannot be exported for MONAI or nnU-Net. Export it with --format safetensors."
        )
    return TARGETS[description.name]


def not_in_monai(description: EncoderDescription) -> str | None:
    """Why MONAI has no such network, in words; None where it has."""
    if description.name not in TARGETS:
        return f"encoder '{description.name}' is no network of MONAI"
    if description.name == "vit":
        from medssl.encoders.vit import ViTOptions, unlike_monai

        return unlike_monai(ViTOptions.model_validate(description.options))
    return None


def monai_arguments(description: EncoderDescription, out_channels: int) -> dict[str, Any]:
    """Keyword arguments of the MONAI class, plain JSON values."""
    module = importlib.import_module(monai_target(description).module)
    options = encoder_class(description.name).Options.model_validate(description.options)
    arguments: dict[str, Any] = module.monai_arguments(options, description.in_channels, out_channels)
    return arguments


def monai_network(model: TrainedModel) -> tuple[nn.Module, list[TransferReport]]:
    """MONAI's network with the run's weights, each tensor accounted for, its forward pass checked against ours.

    Where the run has no decoder, the network's is freshly initialised (seed 0), with one output channel.
    """
    target = monai_target(model.encoder.description)
    decoder = model.decoder
    out_channels = decoder.out_channels if decoder is not None else 1
    name = target.path.rpartition(".")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        cls = getattr(importlib.import_module(name[0]), name[2])
        network: nn.Module = cls(**monai_arguments(model.encoder.description, out_channels))
    reports = [transfer(model.encoder.state_dict(), network, what="encoder")]
    if decoder is not None:
        reports.append(transfer(decoder.state_dict(), network, what="decoder"))
        check_forward_equality(SegmentationNetwork(model.encoder, decoder), network, model.test_image())
    return network.eval(), reports
