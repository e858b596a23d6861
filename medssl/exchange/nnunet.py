"""A DynUNet encoder as a checkpoint for nnU-Net.

MONAI's DynUNet with `res_block=False` is nnU-Net's PlainConvUNet under other names. nnU-Net's convolutions have biases
in front of an instance normalisation, which cancels them: they are written as zeros, and both networks then give the
same numbers.

The file serves both of nnU-Net's roads: `nnUNetv2_train -pretrained_weights` wants every tensor of the network (decoder
and aliases included), `nnUNetv2_train_pretrained` wants "nnssl_adaptation_plan", which describes the architecture, and
reads the file with weights_only=True. TrainedModel: nnU-Net 2.8, experiment_planning/like_nnssl.py and
run/load_pretrained_weights.py.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medssl.encoders.architectures.dynunet import DynUNetEncoder, DynUNetOptions
from medssl.encoders.encoder import Decoder
from medssl.encoders.tensors import plain_state, write_json
from medssl.errors import ConfigError
from medssl.exchange.trained_model import TrainedModel

ARCHITECTURE = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
STEM = "encoder.stages.0.0.convs.0"
SEED = 0


def write_nnunet(model: TrainedModel, folder: Path) -> list[str]:
    """Write checkpoint_final.pth and adaptation_plan.json.

    Return notes. Raises ConfigError for other encoders than dynunet.
    """
    if not isinstance(model.encoder, DynUNetEncoder):
        raise ConfigError(
            f"encoder '{model.encoder.description.name}' has no counterpart in nnU-Net. Only 'dynunet' can be "
            "exported with --format nnunet; take --format safetensors or monai-bundle."
        )
    options = model.encoder.options
    weights, notes = network_weights(model.encoder, model.decoder)
    plan = adaptation_plan(model, options)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = {"network_weights": weights, "nnssl_adaptation_plan": plan, "citations": [], "trainer_name": "medssl"}
    torch.save(checkpoint, folder / "checkpoint_final.pth")
    write_json(folder / "adaptation_plan.json", {**plan, "trainer_name": "medssl"})
    (folder / "README.md").write_text(_readme(model))
    if options.dropout:
        notes.append(f"The dropout of {options.dropout} is not part of nnU-Net's plans and is left out.")
    return notes


def network_weights(encoder: DynUNetEncoder, decoder: Decoder | None) -> tuple[dict[str, Tensor], list[str]]:
    """The full state dict of a PlainConvUNet, aliases and all segmentation layers included; and notes.

    A decoder that the run did not train, or whose kernels nnU-Net places differently, is freshly initialised (seed 0).
    """
    notes = []
    if decoder is not None and not _same_kernels(encoder.options):
        notes.append(
            "nnU-Net gives the decoder other kernels for anisotropic voxels, so its decoder is freshly initialised."
        )
        decoder = None
    elif decoder is None:
        notes.append("The run trained no decoder, so that of the checkpoint is freshly initialised.")
    out_channels = decoder.out_channels if decoder is not None else 2
    blocks = plain_state(encoder)
    stages: dict[str, Tensor] = {}
    for stage, prefix in enumerate(_encoder_blocks(encoder)):
        stages |= _stage(f"stages.{stage}.0", blocks, prefix)
    weights = {f"encoder.{name}": tensor for name, tensor in stages.items()}
    weights |= {f"decoder.encoder.{name}": tensor for name, tensor in stages.items()}
    return weights | _decoder_weights(encoder, decoder, out_channels), notes


def adaptation_plan(model: TrainedModel, options: DynUNetOptions) -> dict[str, Any]:
    """What nnU-Net must know to build the network and to place its weights; plain JSON values."""
    sizes = options.model_dump(mode="json")
    patch = list(model.patch or (2 * step for step in model.encoder.divisor))
    spacing = list(model.spacing_mm) if model.spacing_mm is not None else None
    levels = len(sizes["filters"])
    return {
        "architecture_plans": {
            "arch_class_name": ARCHITECTURE,
            "arch_kwargs": {
                "n_stages": levels,
                "features_per_stage": sizes["filters"],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": sizes["kernel_size"],
                "strides": sizes["strides"],
                "n_conv_per_stage": [2] * levels,
                "n_conv_per_stage_decoder": [2] * (levels - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "pretrain_plan": {
            "configurations": {
                "medssl": {
                    "spacing": spacing,
                    "patch_size": patch,
                    "normalization_schemes": ["ZScoreNormalization"] * model.encoder.description.in_channels,
                }
            }
        },
        "pretrain_num_input_channels": model.encoder.description.in_channels,
        "recommended_downstream_patchsize": patch,
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stages.0",
        "keys_to_in_proj": [f"{STEM}.conv", f"{STEM}.all_modules.0"],
        "key_to_lpe": None,
    }


def _encoder_blocks(encoder: DynUNetEncoder) -> list[str]:
    return ["input_block", *(f"downsamples.{i}" for i in range(len(encoder.downsamples))), "bottleneck"]


def _same_kernels(options: DynUNetOptions) -> bool:
    """Whether level i and i + 1 have the same kernel: MONAI's decoder takes the one, nnU-Net's the other."""
    return len(set(options.kernel_size)) == 1


def _stage(name: str, blocks: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Two convolutions with their normalisations under the names of nnU-Net's StackedConvBlocks, aliases included."""
    out: dict[str, Tensor] = {}
    for i in (0, 1):
        convolution = blocks[f"{prefix}.conv{i + 1}.conv.weight"]
        parts = {"conv": {"weight": convolution, "bias": torch.zeros(len(convolution))}}
        parts["norm"] = {key: blocks[f"{prefix}.norm{i + 1}.{key}"] for key in ("weight", "bias")}
        for position, (part, tensors) in enumerate(parts.items()):
            for key, tensor in tensors.items():
                out[f"{name}.convs.{i}.{part}.{key}"] = tensor
                out[f"{name}.convs.{i}.all_modules.{position}.{key}"] = tensor
    return out


def _decoder_weights(encoder: DynUNetEncoder, decoder: Decoder | None, out_channels: int) -> dict[str, Tensor]:
    """Transposed convolutions, stages and segmentation layers of nnU-Net's UNetDecoder, coarsest first."""
    options = encoder.options
    fresh = decoder is None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if decoder is None:
            # nnU-Net's decoder takes the kernels of the skip's level.
            shifted = options.model_copy(update={"kernel_size": (options.kernel_size[0], *options.kernel_size[:-1])})
            decoder = DynUNetEncoder(encoder.description).make_decoder(out_channels)
            if not _same_kernels(options):
                decoder = type(decoder)(shifted, out_channels)
        blocks = plain_state(decoder)
        out: dict[str, Tensor] = {}
        features = list(reversed(options.filters[:-1]))
        for level, count in enumerate(features):
            for key in ("weight", "bias"):
                out[f"decoder.transpconvs.{level}.{key}"] = blocks[f"upsamples.{level}.transp_conv.conv.{key}"]
            out |= _stage(f"decoder.stages.{level}", blocks, f"upsamples.{level}.conv_block")
            # Only the last layer is ours: nnU-Net keeps one per level for deep supervision, and never transfers any of
            # them.
            last = level == len(features) - 1 and not fresh
            weight = torch.nn.init.kaiming_normal_(torch.empty(out_channels, count, 1, 1, 1), a=0.01)
            out[f"decoder.seg_layers.{level}.weight"] = blocks["output_block.conv.conv.weight"] if last else weight
            out[f"decoder.seg_layers.{level}.bias"] = (
                blocks["output_block.conv.conv.bias"] if last else torch.zeros(out_channels)
            )
    return out


def _readme(model: TrainedModel) -> str:
    channels = model.encoder.description.in_channels
    return f"""# A pretrained encoder for nnU-Net

`checkpoint_final.pth` holds nnU-Net's plain convolutional network ({channels} input channel(s)) with the encoder that
medssl trained. Its axes are (superior, anterior, right). nnU-Net takes the axes of the file: store scans in RAS.

Architecture and patch of the pretraining, spacing of your data:

    nnUNetv2_preprocess_like_nnssl -d DATASET -n NAME -pc checkpoint_final.pth -am default_nnunet
    nnUNetv2_train_pretrained DATASET 3d_fullres FOLD -p PLANS_THAT_IT_NAMED -tr PretrainedTrainer

With plans of your own whose network has the same sizes (kernels, strides, features: see adaptation_plan.json):

    nnUNetv2_train DATASET 3d_fullres FOLD -pretrained_weights checkpoint_final.pth
"""
