"""Small networks to export."""

import torch

from medssl.encoders.build import build_encoder, describe

SIZES = {
    "dynunet": ({"filters": (4, 6, 8)}, (16, 24, 32)),
    "segresnet": ({"init_filters": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 1)}, (16, 24, 32)),
    "swin-unetr": ({"depths": (1, 1, 1, 1)}, (32, 64, 32)),
    "vit": ({"hidden_size": 12, "mlp_dim": 12, "num_heads": 2, "feature_size": 4, "patch_size": 16}, (16, 32, 48)),
}
POLICY = {"spacing_mm": {}, "other_spacing_mm": [1.0, 1.5, 2.0], "keep_through_plane": True, "anisotropy": 3.0}


def encoder_of(name="dynunet", **more):
    options, patch = SIZES[name]
    torch.manual_seed(0)
    encoder = build_encoder(describe(name, preset="tiny", options=options | more, patch=patch))
    with torch.no_grad():  # normalisation layers start at 1 and 0, where a swapped key would not show
        for parameter in filter(lambda each: each.requires_grad, encoder.parameters()):
            parameter.add_(torch.rand_like(parameter) * 0.1)
    return encoder


def stirred(decoder):
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.rand_like(parameter) * 0.1)
    return decoder
