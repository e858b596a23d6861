"""The same network under MONAI's own class: which class, with which arguments, holding the run's weights."""

import pkgutil

import torch
from torch import nn

from medssl.encoders.encoder import Encoder, MonaiTarget
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.transfer import TransferReport, check_forward_equality, transfer
from medssl.errors import ConfigError
from medssl.exchange.trained_model import TrainedModel

SEED = 0


def monai_target(encoder: Encoder) -> MonaiTarget:
    """The MONAI class of an encoder. Raises ConfigError for an encoder that MONAI does not have."""
    reason = not_in_monai(encoder)
    if encoder.monai_target is None or reason is not None:
        raise ConfigError(
            f"{reason}, so it cannot be exported for MONAI or nnU-Net. Export it with --format safetensors."
        )
    return encoder.monai_target


def not_in_monai(encoder: Encoder) -> str | None:
    """Why MONAI does not have this network, in words; None where it has."""
    if encoder.monai_target is None:
        return f"MONAI does not have the network of encoder '{encoder.description.name}'"
    return encoder.unlike_monai


def monai_network(model: TrainedModel) -> tuple[nn.Module, list[TransferReport]]:
    """MONAI's network with the run's weights, each tensor accounted for, its forward pass checked against ours.

    Where the run has no decoder, the network's is freshly initialised (seed 0), with one output channel.
    """
    target = monai_target(model.encoder)
    decoder = model.decoder
    out_channels = decoder.out_channels if decoder is not None else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network: nn.Module = pkgutil.resolve_name(target.path)(**model.encoder.monai_arguments(out_channels))
    reports = [transfer(model.encoder.state_dict(), network, what="encoder")]
    if decoder is not None:
        reports.append(transfer(decoder.state_dict(), network, what="decoder"))
        check_forward_equality(SegmentationNetwork(model.encoder, decoder), network, model.test_image())
    return network.eval(), reports
