"""Rotation: predict by which quarter turns a patch was rotated.

After Gidaris et al. 2018 (arXiv 1803.07728) and, in 3D, Taleb et al. 2020 (arXiv 2006.03829). A cube has 24 proper
rotations; where voxels are not cubes, the texture of a thick axis reveals where it was turned to, and only the 4 turns
in the plane of the slices remain.
"""

from collections.abc import Iterable, Mapping
from itertools import permutations, product
from math import log
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from medssl.encoders.encoder import Encoder
from medssl.errors import ConfigError
from medssl.hookspecs import hookimpl
from medssl.loading.crops import Crop
from medssl.pretext.heads import VectorHead, class_energies, pooled
from medssl.pretext.patches import PatchConfig, PatchGeometry, without_flips
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D
from medssl.views.region import Region

THICK = 2.0  # ratio of voxel edges above which turns are visible in the texture, as in the topology of encoders


class Rotation(PretextTask):
    """Rotate a patch by quarter turns and predict which."""

    name = "rotation"
    family = "predictive"

    class Config(PatchConfig):
        """Settings of rotation."""

        group: Literal["auto", "cube", "in-plane"] = Field(
            default="auto",
            description="The 24 rotations of a cube, or the 4 turns in the plane of the slices (H, W, unless another "
            "axis is the thick one). auto: cube where no voxel edge is twice as long as another; with thick slices the "
            "texture would reveal the answer, so cube is refused there.",
        )
        rotations_per_patch: int = Field(
            default=2, ge=1, le=24, description="Different turns of each patch; they multiply the size of the batch."
        )
        geometry: PatchGeometry = Field(
            default=PatchGeometry(flip=(0.0, 0.0, 0.0), rotation_deg=10.0),
            description="Random rotation and magnification. Mirroring is refused: a mirrored patch may look like a "
            "rotated one.",
        )

        @field_validator("geometry")
        @classmethod
        def _unmirrored(cls, geometry: PatchGeometry) -> PatchGeometry:
            return without_flips(geometry, axes="DHW")

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.about = turning_axis(encoder, config.group)
        self.turns = TURNS_OF_A_CUBE if self.about is None else turns_about(self.about)
        if config.rotations_per_patch > len(self.turns):
            raise ConfigError(
                f"task.rotations_per_patch is {config.rotations_per_patch}, but there are {len(self.turns)} turns. "
                f"Lower task.rotations_per_patch to {len(self.turns)} or less."
            )
        self.head = VectorHead(encoder, len(self.turns))

    def crops(self, patch: Shape3D) -> Mapping[str, Crop]:
        """A crop with equal edges, the smallest of the patch's, so that turning it keeps its shape.

        In the plane only the two edges that are exchanged are made equal.
        """
        step = self.encoder.divisor
        turning = [axis for axis in range(3) if axis != self.about]
        edge = _rounded(min(patch[axis] for axis in turning), max(step[axis] for axis in turning))
        d, h, w = (edge if axis in turning else patch[axis] for axis in range(3))
        return {"patch": self.config.geometry.crop((d, h, w))}

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, str]:
        """The turns that are distinguished."""
        return {"group": "cube" if self.about is None else "in-plane"}

    def views(self, region: Region) -> dict[str, Tensor]:
        """`upright`, the patch; `turned` (B, n, C, D, H, W); `turn` (B, n), distinct indices of turns."""
        upright = region.crop("patch")
        # On the host, to turn without waiting for the device; the answer is copied to it.
        order = region.random.random("turns", (len(self.turns),)).argsort(axis=1)[:, : self.config.rotations_per_patch]
        rows = [
            torch.stack([turned(image, self.turns[index]) for index in indices])
            for image, indices in zip(upright, order.tolist(), strict=True)
        ]
        answer = torch.from_numpy(order.copy()).to(upright.device, non_blocking=True)
        return {"upright": upright, "turned": torch.stack(rows), "turn": answer}

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Cross-entropy of the turn, averaged over the turns of a patch."""
        images, answer = views["turned"], views["turn"]
        pyramid = self.encoder(images.flatten(0, 1))
        logits = self.head(pyramid).to(images.dtype)
        right, wrong = class_energies(logits, answer.flatten())
        energy, negative = right.view_as(answer).mean(dim=1), wrong.view_as(answer).mean(dim=1)
        pictures = {"scan": views["upright"], "turned": images[:, 0]}
        if not self.training:
            predictions = logits.argmax(dim=1).view_as(answer)[:, 0].tolist()
            back = [
                turned(image, inverse(self.turns[prediction]))
                for image, prediction in zip(images[:, 0], predictions, strict=True)
            ]
            pictures["prediction"] = torch.stack(back)  # upright again, if the prediction was right
        return Step(
            loss=energy.mean(),
            energy=energy.detach(),
            negative_energy=negative,
            trivial_loss=log(len(self.turns)),
            terms={"accuracy": (logits.argmax(dim=1) == answer.flatten()).to(images.dtype).mean()},
            pictures=pictures,
            embeddings=pooled(pyramid).detach(),
        )


Turn = tuple[tuple[int, int, int], tuple[bool, bool, bool]]
"""(axes, mirrored): new axis i is old axis axes[i], reversed where mirrored[i]."""


def turning_axis(encoder: Encoder, group: str) -> int | None:
    """The axis about which to turn; None for all rotations of a cube.

    It follows from the spacing that the encoder was planned for, or, if that is unknown, from its strides.

    Raises:
        ConfigError: the shape of a voxel would reveal every turn of the group.
    """
    spacing = encoder.description.spacing_mm
    if spacing is None:
        alike = all(len(set(stride)) == 1 for stride in encoder.strides)
        return None if group == "cube" or (group == "auto" and alike) else 0
    if max(spacing) < THICK * min(spacing):
        return 0 if group == "in-plane" else None
    shown = [round(edge, 3) for edge in spacing]
    if group == "cube":
        raise ConfigError(
            f"task.group is cube, but voxels are {shown} mm (D, H, W): their shape would reveal the turns. Use "
            "--set task.group=in-plane, or auto, or ingest with a spacing of equal edges."
        )
    for axis in range(3):
        in_plane = [spacing[i] for i in range(3) if i != axis]
        if max(in_plane) < THICK * min(in_plane):
            return axis
    raise ConfigError(
        f"voxels are {shown} mm (D, H, W), no two edges alike: their shape reveals every quarter turn. Ingest with "
        "another spacing, or choose another task."
    )


def turned(image: Tensor, turn: Turn) -> Tensor:
    """(C, D, H, W) turned."""
    axes, mirrored = turn
    out = image.permute(0, *(axis + 1 for axis in axes))
    return out.flip([i + 1 for i, backwards in enumerate(mirrored) if backwards])


def inverse(turn: Turn) -> Turn:
    """The turn that undoes `turn`."""
    axes, mirrored = turn
    back = (axes.index(0), axes.index(1), axes.index(2))
    return back, (mirrored[back[0]], mirrored[back[1]], mirrored[back[2]])


def _proper_turns() -> tuple[Turn, ...]:
    """The 24 rotations of a cube, the identity first: signed permutations of the axes with determinant +1."""
    turns: list[Turn] = []
    for axes in permutations((0, 1, 2)):
        swaps = sum(axes[i] > axes[j] for i in range(3) for j in range(i + 1, 3))
        for mirrored in product((False, True), repeat=3):
            if (swaps + sum(mirrored)) % 2 == 0:
                turns.append(((axes[0], axes[1], axes[2]), (mirrored[0], mirrored[1], mirrored[2])))
    return tuple(turns)


def _rounded(edge: int, step: int) -> int:
    return max(1, edge // step) * step


def turns_about(axis: int) -> tuple[Turn, ...]:
    """The 4 turns that leave an axis where it is, the identity first."""
    return tuple(turn for turn in TURNS_OF_A_CUBE if turn[0][axis] == axis and not turn[1][axis])


TURNS_OF_A_CUBE = _proper_turns()


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [Rotation]
