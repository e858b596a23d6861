"""Pseudo-segmentation: segment a map that was made by clustering, without labels.

Voxels are clustered by their brightness at several scales and, weakly, by their position in the scan; the encoder with
its decoder then segments the clusters in a patch with changed intensities and hidden blocks. The idea is that of
superpixel pseudo-labels (Ouyang et al. 2020, SSL-ALPNet, arXiv 2007.09886); clusters, unlike superpixels, mean the same
in every scan (Caron et al. 2018, DeepCluster).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.collectives import gather
from medssl.pretext.distillation import entropy
from medssl.pretext.heads import pooled
from medssl.pretext.hidden_blocks import block_edges, hide_blocks
from medssl.pretext.kmeans import euclidean_kmeans, nearest_centroid
from medssl.pretext.patches import PatchConfig, PatchGeometry
from medssl.pretext.projection import without_autocast
from medssl.pretext.queue import Queue
from medssl.pretext.reconstruction import scored_mean, valid_fraction
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D
from medssl.views.filters import blur
from medssl.views.intensity import IntensityChain
from medssl.views.region import Region

# (sigma of a blur in voxels, weight): brightness of the voxel, which is noisy, and of its surroundings.
SCALES_VOXELS = ((0.0, 0.6), (1.0, 1.0), (2.5, 1.0))
SAMPLED = 1024  # descriptors per patch that enter the memory
MEMORY = 32768  # descriptors that are clustered
ITERATIONS = 20


class PseudoSegmentation(PretextTask):
    """Cluster voxels by brightness and position, and segment the clusters in an augmented patch."""

    name = "pseudo-segmentation"
    family = "clustering"

    class Config(PatchConfig):
        """Settings of pseudo-segmentation."""

        clusters: int = Field(
            default=24, ge=2, le=256, description="Classes of the map. More are finer, and harder to distinguish."
        )
        position_weight: float = Field(
            default=2.0,
            ge=0.0,
            le=20.0,
            description="Weight of the position in the scan (from -1 to 1 along each axis) against brightness, whose "
            "standard deviation is about 1. 0 clusters by brightness alone: for archives whose scans show different "
            "parts of the body. Large values cut scans into boxes.",
        )
        recluster_fraction: float = Field(
            default=0.1,
            gt=0.0,
            le=1.0,
            description="Fraction of the run during which clusters are recomputed; then they stay, so that classes "
            "keep their meaning.",
        )
        mask_ratio: float = Field(
            default=0.3, ge=0.0, lt=1.0, description="Fraction of the blocks that is hidden from the encoder."
        )
        block: Annotated[int, Field(ge=2, le=64)] | Literal["auto"] = Field(
            default="auto",
            description="Edge of a hidden block in voxels. auto: per axis an eighth of the patch, as a power of two "
            "from 4 to 16.",
        )
        intensity: float = Field(
            default=1.0,
            ge=0.0,
            le=2.0,
            description="Strength of noise, blur, brightness, contrast, low resolution and gamma in the encoder's "
            "input. Without them a threshold finds most clusters.",
        )
        geometry: PatchGeometry = Field(
            default=PatchGeometry(flip=(0.0, 0.0, 0.0)),
            description="Random rotation, magnification and mirroring. Mirroring is off: it changes positions.",
        )

    config: Config
    centroids: Tensor
    shares: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.decoder = encoder.make_decoder(config.clusters)
        features = len(SCALES_VOXELS) * encoder.description.in_channels + (3 if config.position_weight > 0 else 0)
        draw = torch.Generator().manual_seed(0)
        self.register_buffer("centroids", torch.randn(config.clusters, features, generator=draw))
        self.register_buffer("shares", torch.full((config.clusters,), 1.0 / config.clusters))
        self.memory = Queue(MEMORY, features)
        # Known on the host, so that no step waits for the device.
        self._trivial: float | None = None
        self._has_map: bool | None = None

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, list[int]]:
        """Edges of a hidden block along D, H, W."""
        return {"block": list(block_edges(self.config.block, patch))}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`scan`, the patch; `visible`, the encoder's input; `descriptors` (B, F, D, H, W) of all voxels and `sampled`
        (B, S, F) of some; `scored`, the voxels inside the scan.
        """
        scan, scored = region.crop("patch"), region.valid("patch")
        hidden, _ = hide_blocks(scan, region.random, block=self.config.block, ratio=self.config.mask_ratio)
        visible = IntensityChain(self.config.intensity)(scan, region.random, "patch").masked_fill(hidden, 0.0)
        descriptors = self._descriptors(scan, region)
        return {
            "scan": scan,
            "visible": visible,
            "descriptors": descriptors,
            "sampled": _sampled(descriptors, scored, region.random.uniform("sampled", 0.0, 1.0, (SAMPLED,))),
            "scored": scored,
        }

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Cross-entropy of the clusters of all voxels inside the scan; the trivial prediction is their frequencies."""
        if self.training:
            self._remember(views["sampled"])
        if self._trivial is None:
            self._trivial = float(entropy(self.shares))
        target, scored, visible = self._clusters(views["descriptors"]), views["scored"], views["visible"]
        pyramid = self.encoder(visible)
        logits = self.decoder(pyramid, visible)
        with without_autocast(logits):
            energy = scored_mean(F.cross_entropy(logits.float(), target, reduction="none")[:, None], scored)
            mismatched = F.cross_entropy(logits.detach().float(), target.roll(1, dims=0), reduction="none")[:, None]
        prediction = logits.detach().argmax(dim=1, keepdim=True)
        highest = self.config.clusters - 1
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=scored_mean(mismatched, scored) if len(target) > 1 else None,
            trivial_loss=self._trivial,
            terms={"clusters_used": entropy(self.shares) / math.log(self.config.clusters)},
            pictures={
                "scan": views["scan"],
                "visible": visible,
                "clusters": target[:, None].to(visible.dtype) / highest,
                "prediction": prediction.to(visible.dtype) / highest,
            },
            embeddings=pooled(pyramid).detach(),
            valid_fraction=valid_fraction(scored),
        )

    def after_step(self, step: int, total: int) -> None:
        """Until `recluster_fraction` of the run, cluster at every doubling of the steps, identically on every rank."""
        done = step + 1
        if done <= max(1, self.config.recluster_fraction * total) and done & (done - 1) == 0:
            self._cluster()

    def _descriptors(self, scan: Tensor, region: Region) -> Tensor:
        """(B, F, D, H, W): brightness at each scale, then the position in the scan."""
        parts = []
        inside = torch.ones_like(scan[:, :1])
        for sigma, weight in SCALES_VOXELS:
            width = torch.full((len(scan), 3), sigma, device=scan.device)
            # divided by the part of the kernel inside the patch, since there is only padding beyond its edge
            smooth = blur(scan, width) / blur(inside, width) if sigma else scan
            parts.append(weight * smooth)
        if self.config.position_weight > 0:
            parts.append(self.config.position_weight * _positions(scan, region))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def _clusters(self, descriptors: Tensor) -> Tensor:
        """(B, D, H, W) number of the nearest centroid."""
        with without_autocast(descriptors):
            flat = descriptors.movedim(1, -1).reshape(-1, descriptors.shape[1])
            return nearest_centroid(flat, self.centroids).view(len(descriptors), *descriptors.shape[2:])

    @torch.no_grad()
    def _remember(self, sampled: Tensor) -> None:
        if self._has_map is None:
            self._has_map = int(self.memory.written) > 0  # of a resumed training
        self.memory.push(gather(sampled.flatten(0, 1), across_ranks=True))
        if not self._has_map:  # the initial centroids are random: cluster the first batch
            self._cluster()

    @torch.no_grad()
    def _cluster(self) -> None:
        descriptors = self.memory.filled()
        self.centroids.copy_(euclidean_kmeans(descriptors, self.config.clusters, iterations=ITERATIONS))
        counts = torch.bincount(nearest_centroid(descriptors, self.centroids), minlength=self.config.clusters)
        self.shares.copy_(counts / len(descriptors))
        self._trivial, self._has_map = float(entropy(self.shares)), True


def _positions(scan: Tensor, region: Region) -> Tensor:
    """(B, 3, D, H, W) position of each voxel of the patch in its scan, from -1 to 1 along d, h, w."""
    lines = [torch.arange(edge, device=scan.device, dtype=torch.float32) for edge in scan.shape[2:]]
    voxels = torch.stack(torch.meshgrid(*lines, indexing="ij")).flatten(1)  # (3, D*H*W)
    matrix = region.matrix("patch")
    in_scan = matrix[:, :, :3] @ voxels + matrix[:, :, 3:]
    shape = region.scan_shape[:, :, None]
    return ((2 * in_scan + 1) / shape - 1).clamp(-1, 1).view(len(scan), 3, *scan.shape[2:])


def _sampled(descriptors: Tensor, scored: Tensor, fractions: Tensor) -> Tensor:
    """(B, S, F) descriptors of voxels inside the scan, at these fractions (B, S) of their list."""
    flat = descriptors.flatten(2)
    inside_first = torch.sort(~scored.flatten(1), dim=1, stable=True).indices
    count = scored.flatten(1).sum(dim=1, keepdim=True)
    voxels = inside_first.gather(1, (fractions * count).long().clamp(max=flat.shape[2] - 1))
    return flat.gather(2, voxels[:, None].expand(-1, flat.shape[1], -1)).mT


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [PseudoSegmentation]
