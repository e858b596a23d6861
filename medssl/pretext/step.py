"""What a task hands back for one batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

PICTURE_AXES = 5  # (B, C, D, H, W)


@dataclass  # not frozen: Fabric converts the precision of outputs field by field
class Step:
    """Loss of one batch and what a reviewer wants to see of it.

    loss: scalar with gradient. energy: (B,) compatibility of each sample's pair, low for pairs that belong together,
    without gradient. negative_energy: the same for pairs that do not belong together, where the task can say
    (shuffled pairs), else None. trivial: the loss of the collapsed or trivial solution, to read the loss against;
    None where there is none. terms: detached scalars by name, logged beside the loss. pictures: (B, C, D, H, W)
    volumes in the order in which they are shown, of which the first channel is kept. embeddings: (N, F) detached
    features that the collapse monitors read, where the task makes any. scored: (B,) share of each sample's voxels that
    its energy rests on; where it is 0 the energy says nothing (air, one grey value). None where all count. parts: of a
    task made of others, the step of each by its name, all detached, so that a part that collapses is not hidden by the
    sum.
    """

    loss: Tensor
    energy: Tensor
    negative_energy: Tensor | None = None
    trivial: float | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None
    scored: Tensor | None = None
    parts: Mapping[str, "Step"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep the first channel of each picture: a sheet shows grey levels."""
        volumes = {name for name, picture in self.pictures.items() if getattr(picture, "ndim", 0) == PICTURE_AXES}
        self.pictures = {
            name: picture[:, :1] if name in volumes else picture for name, picture in self.pictures.items()
        }
