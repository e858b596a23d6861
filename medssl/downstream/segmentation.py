"""Segmentation as the training loop trains it: views, loss and pictures."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.loading.crops import Crop
from medssl.pretext.task import Step
from medssl.shapes import Shape3D
from medssl.views.intensity import IntensityChain
from medssl.views.region import Region


def segmentation_crops(patch: Shape3D, *, strength: float) -> Mapping[str, Crop]:
    """The single crop of fine-tuning; rotation and zoom grow with `strength`, and 0 switches both off.

    Without mirroring, because left and right are different labels in much of the anatomy.
    """
    angle = 15.0 * strength
    zoom = 1.0 + 0.2 * strength
    return {
        "patch": Crop(
            size=patch,
            rotation_deg=(angle, angle, angle),
            zoom=(1 / zoom, zoom),
            stretch=1.0 + 0.05 * strength,
            probability=0.7 if strength > 0 else 0.0,
        )
    }


class Segmentation(nn.Module):
    """Dice + cross-entropy over augmented patches (the loss of nnU-Net: Isensee et al. 2021, Methods)."""

    def __init__(self, network: SegmentationNetwork, *, classes: int, strength: float) -> None:
        """classes: background included. strength: of the augmentation, 0 switches it off."""
        super().__init__()
        from monai.losses import DiceCELoss

        self.network = network
        self.classes = classes
        self.intensity = IntensityChain(strength) if strength > 0 else None
        # batch=True: Dice over the batch, since a small patch often holds no voxel of a class
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, include_background=False)

    def views(self, region: Region) -> dict[str, Tensor]:
        """image: (B, 1, D, H, W) augmented; label: (B, 1, D, H, W) int64."""
        image = region.crop("patch")
        if self.intensity is not None:
            image = self.intensity(image, region.random, "patch")
        return {"image": image, "label": region.label("patch")}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Loss of one batch; energy is the fraction of wrongly labelled voxels of each sample."""
        logits = self.network(views["image"]).float()
        label = views["label"]
        predicted = logits.detach().argmax(dim=1, keepdim=True)
        wrong = (predicted != label).float().flatten(1).mean(dim=1)
        pictures = {"scan": views["image"], "label": label, "prediction": predicted} if not self.training else {}
        return Step(
            loss=self.loss(logits, label), energy=wrong, terms={"wrong_voxels": wrong.mean()}, pictures=pictures
        )

    def after_step(self, step: int, total: int) -> None:
        """Nothing: no teacher, no queue."""


@torch.inference_mode()
def predict_labels(network: nn.Module, image: Tensor, *, patch: Shape3D, overlap: float, pad_value: float) -> Tensor:
    """(D, H, W) uint8 labels of a normalised (D, H, W) scan, by MONAI's sliding window with Gaussian weights.

    Args:
        network: Gives logits.
        image: On the network's device.
        patch: (D, H, W) voxels of a window: the training patch, because normalisation layers saw no other size.
        overlap: Of neighbouring windows, as a fraction of the patch.
        pad_value: Normalised value beyond the scan's edge, as in training.
    """
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(
        patch, sw_batch_size=4, overlap=overlap, mode="gaussian", padding_mode="constant", cval=pad_value
    )
    logits: Tensor = inferer(image[None, None], network)
    return logits.argmax(dim=1)[0].to(torch.uint8)
