"""Sparse coding: predict the few atoms of a dictionary that compose each cell of a scan.

Predictive sparse decomposition (Kavukcuoglu, Ranzato & LeCun 2010, arXiv 1010.3467): codes are inferred by FISTA (Beck
& Teboulle 2009) with a learned dictionary, and the encoder learns to predict in one pass what inference finds.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.heads import VoxelHead, pooled
from medssl.pretext.patches import PatchConfig
from medssl.pretext.reconstruction import scored_mean, valid_fraction
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D
from medssl.views.region import Region

MAX_CELL = 4  # voxels along an axis that a dictionary of patches can cover
MAX_ATOMS = 512  # with atoms=auto
MAX_WIDTH = 256  # features of the predictor
SQUARINGS = 10


class SparseCoding(PretextTask):
    """Cut a patch into cells, encode each with few atoms of a dictionary, and predict the codes with the encoder."""

    name = "sparse-coding"
    family = "generative"

    class Config(PatchConfig):
        """Settings of sparse-coding."""

        atoms: Annotated[int, Field(ge=2, le=4096)] | Literal["auto"] = Field(
            default="auto",
            description="Atoms of the dictionary. auto: twice the numbers of a cell, so that several codes fit and "
            "sparsity selects; at most 512.",
        )
        sparsity: float = Field(
            default=0.5,
            gt=0.0,
            le=100.0,
            description="Weight of the L1 norm of a code; atoms with a smaller coefficient are not used. In "
            "units of the normalised scan times the root of a cell's voxels.",
        )
        iterations: int = Field(default=20, ge=1, le=1000, description="Iterations of FISTA per batch.")
        prediction_weight: float = Field(
            default=1.0, gt=0.0, le=100.0, description="Weight of the encoder's squared error in predicting the codes."
        )

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        level = code_level(encoder)
        self.cell = cell_of(encoder.strides[level])
        d, h, w = (stride // edge for stride, edge in zip(encoder.strides[level], self.cell, strict=True))
        self.subcells = (d, h, w)  # cells along each axis of one position of the level: more than 1 where it is coarse
        voxels = self.cell[0] * self.cell[1] * self.cell[2] * encoder.description.in_channels
        atoms = min(MAX_ATOMS, 2 * voxels) if config.atoms == "auto" else int(config.atoms)
        self.dictionary = nn.Parameter(torch.randn(atoms, voxels))
        width = min(MAX_WIDTH, max(32, atoms // 2))
        self.predictor = VoxelHead(encoder, d * h * w * atoms, width=width, level=level)

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, int]:
        """Atoms of the dictionary."""
        return {"atoms": len(self.dictionary)}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`target`, the patch; `scored`, the voxels inside the scan."""
        return {"target": region.crop("patch"), "scored": region.valid("patch")}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """LASSO energy of the inferred codes plus the encoder's squared error in predicting them, per voxel."""
        target = views["target"]
        cells = to_cells(target, self.cell)  # (B, N, V)
        inside = to_cells(views["scored"].to(target.dtype), self.cell).amin(dim=2)  # (B, N)
        pyramid = self.encoder(target)
        with torch.autocast(target.device.type, enabled=False):
            predicted = self.predictor([level.to(target.dtype) for level in pyramid])
            predicted = by_cell(predicted, self.subcells)  # (B, N, K)
            atoms = F.normalize(self.dictionary, dim=1)
            sparsity, iterations = self.config.sparsity, self.config.iterations
            codes = infer(cells, atoms, sparsity=sparsity, iterations=iterations, start=predicted)
            energy = scored_mean(self._energy(cells, codes, predicted=predicted, atoms=atoms), inside)
            negative = None
            if len(target) > 1:
                mismatched = self._energy(cells, codes.roll(1, dims=0), predicted=predicted, atoms=atoms)
                negative = scored_mean(mismatched, inside).detach()
        pictures = {
            "scan": target,
            "sparse": from_cells((codes @ atoms).detach(), self.cell, like=target),
            "prediction": from_cells((predicted @ atoms).detach(), self.cell, like=target),
        }
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=negative,
            terms={
                "trivial_loss": 0.5 * scored_mean(cells.square().mean(dim=2), inside).mean(),
                "active_fraction": (codes != 0).to(target.dtype).mean(),
                "used_atoms": (codes != 0).flatten(0, 1).any(dim=0).to(target.dtype).mean(),
            },
            pictures=pictures | {"error": (pictures["prediction"] - target).abs()},
            embeddings=pooled(pyramid).detach(),
            valid_fraction=valid_fraction(inside),
        )

    def _energy(self, cells: Tensor, codes: Tensor, *, predicted: Tensor, atoms: Tensor) -> Tensor:
        """(B, N) energy of each cell with its code, over the voxels of a cell."""
        prediction = 0.5 * self.config.prediction_weight * (codes - predicted).square().sum(dim=2)
        energy: Tensor = lasso(cells, codes, atoms, sparsity=self.config.sparsity) + prediction
        return energy / cells.shape[2]


def lasso(cells: Tensor, codes: Tensor, atoms: Tensor, *, sparsity: float) -> Tensor:
    """(B, N) energy 1/2 |x - z D|^2 + sparsity |z|_1 of cells (B, N, V) with codes (B, N, K) and atoms (K, V)."""
    energy: Tensor = 0.5 * (cells - codes @ atoms).square().sum(dim=2) + sparsity * codes.abs().sum(dim=2)
    return energy


@torch.no_grad()
def infer(cells: Tensor, atoms: Tensor, *, sparsity: float, iterations: int, start: Tensor) -> Tensor:
    """(B, N, K) codes that approximately minimise `lasso`, without gradient.

    Args:
        cells: (B, N, V).
        atoms: (K, V), of length 1.
        sparsity: weight of the L1 norm.
        iterations: of FISTA (Beck & Teboulle 2009, section 4).
        start: (B, N, K) first codes.
    """
    # A proximal gradient step from an extrapolated point: the gradient of 1/2 |x - z D|^2, then soft thresholding, the
    # proximal operator of the L1 norm. The step size 1 / L needs L at least the largest eigenvalue of D D^T.
    gram = atoms @ atoms.T
    correlation = cells @ atoms.T
    step = 1.0 / largest_curvature(atoms)
    codes = ahead = start.detach()
    momentum = 1.0
    for _ in range(iterations):
        moved = ahead - step * (ahead @ gram - correlation)
        following = moved.sign() * (moved.abs() - step * sparsity).clamp_min(0.0)
        following_momentum = (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5) / 2.0
        ahead = following + (momentum - 1.0) / following_momentum * (following - codes)
        codes, momentum = following, following_momentum
    return codes


def largest_curvature(atoms: Tensor) -> Tensor:
    """An upper bound, within 1 %, of the squared spectral norm of atoms (K, V)."""
    # |A^p|_F^(1/p) falls to the largest eigenvalue of A as p grows. Ten squarings give p = 1024: ten small products
    # instead of a decomposition. From above, because FISTA diverges if its step is too long. Each power is normalised,
    # and the logarithms of the norms are added, so that nothing overflows.
    wide = atoms.shape[0] > atoms.shape[1]
    power = atoms.T @ atoms if wide else atoms @ atoms.T
    logarithm = torch.zeros((), dtype=atoms.dtype, device=atoms.device)
    for squaring in range(SQUARINGS):
        size = power.norm().clamp_min(1e-6)
        logarithm = logarithm + size.log() / 2**squaring
        power = (power / size) @ (power / size)
    bound: Tensor = (logarithm + power.norm().clamp_min(1e-6).log() / 2**SQUARINGS).exp()
    return bound


def code_level(encoder: Encoder) -> int:
    """The coarsest level with a stride of at most 4 voxels along each axis; the finest if all strides are larger."""
    return max((i for i, stride in enumerate(encoder.strides) if max(stride) <= MAX_CELL), default=0)


def cell_of(stride: Shape3D) -> Shape3D:
    """Edges of a cell: along each axis the largest divisor of the stride up to 4."""
    d, h, w = (max(edge for edge in range(1, MAX_CELL + 1) if step % edge == 0) for step in stride)
    return d, h, w


def by_cell(codes: Tensor, subcells: Shape3D) -> Tensor:
    """(B, N, K) codes in the order of `to_cells`, from a map (B, p * q * r * K, d, h, w) with `subcells` p, q, r."""
    p, q, r = subcells
    out: Tensor = rearrange(codes, "b (p q r k) d h w -> b (d p h q w r) k", p=p, q=q, r=r)
    return out


def to_cells(volume: Tensor, cell: Shape3D) -> Tensor:
    """(B, N, V): the volume (B, C, D, H, W) as N cells of V numbers each."""
    p, q, r = cell
    cells: Tensor = rearrange(volume, "b c (d p) (h q) (w r) -> b (d h w) (c p q r)", p=p, q=q, r=r)
    return cells


def from_cells(cells: Tensor, cell: Shape3D, *, like: Tensor) -> Tensor:
    """(B, C, D, H, W) from (B, N, V); the inverse of `to_cells`."""
    p, q, r = cell
    d, h = like.shape[2] // p, like.shape[3] // q
    volume: Tensor = rearrange(cells, "b (d h w) (c p q r) -> b c (d p) (h q) (w r)", d=d, h=h, p=p, q=q, r=r)
    return volume


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [SparseCoding]
