"""Random geometry of the patches of tasks that learn from single patches."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medssl.loading.crops import Crop
from medssl.pretext.task import ViewsConfig
from medssl.shapes import Shape3D

Magnification = Annotated[float, Field(gt=0.1, lt=10.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Angle = Annotated[
    float,
    Field(ge=0.0, le=180.0, description="Largest angle about each axis, in degrees; the same in both directions."),
]
Zoom = Annotated[tuple[Magnification, Magnification], Field(description="Smallest and largest magnification.")]


class PatchGeometry(BaseModel):
    """Mild random geometry like nnU-Net's, so that fine-tuning meets nothing that pretraining has not seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: tuple[Probability, Probability, Probability] = Field(
        default=(0.0, 0.0, 0.5),
        description="Probability of mirroring D, H, W. Left-right (W) alone by default: bodies are not upside down.",
    )
    rotation_deg: Angle = 15.0
    zoom: Zoom = (0.85, 1.2)
    probability: Probability = Field(
        default=0.5, description="Fraction of patches that are rotated and zoomed; the others are read voxel for voxel."
    )

    @field_validator("zoom")
    @classmethod
    def _ordered(cls, zoom: tuple[float, float]) -> tuple[float, float]:
        if zoom[0] > zoom[1]:
            raise ValueError(f"zoom is {list(zoom)}; give the smaller magnification first")
        return zoom

    def crop(self, size: Shape3D) -> Crop:
        """A patch of `size` (D, H, W) voxels with this geometry."""
        angles = (self.rotation_deg,) * 3
        return Crop(size=size, rotation_deg=angles, zoom=self.zoom, flip=self.flip, probability=self.probability)


class PatchConfig(ViewsConfig):
    """Settings of a task that learns from single patches of mild random geometry."""

    geometry: PatchGeometry = Field(
        default=PatchGeometry(), description="Random rotation, magnification and mirroring."
    )

    def crops(self, patch: Shape3D, *, divisor: Shape3D) -> dict[str, Crop]:
        """One crop `patch`, of that size (D, H, W)."""
        return {"patch": self.geometry.crop(patch)}


def without_flips(geometry: PatchGeometry, *, axes: str) -> PatchGeometry:
    """The same geometry. Raises ValueError where it mirrors one of these axes (letters of "DHW")."""
    mirrored = [axis for axis, chance in zip("DHW", geometry.flip, strict=True) if chance > 0 and axis in axes]
    if mirrored:
        raise ValueError(
            f"mirroring {' and '.join(mirrored)} would change the answer; set these probabilities of flip to 0"
        )
    return geometry
