"""DINO: a student assigns small or masked crops to prototypes as its momentum teacher assigns whole crops.

Caron et al. 2021 (arXiv 2104.14294). The masked term is that of iBOT (Zhou et al. 2022, arXiv 2111.07832).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.encoders.encoder import Encoder
from medssl.hookspecs import hookimpl
from medssl.pretext.clustering import Prototypes
from medssl.pretext.distillation import Centre, cross_entropy, entropy, prototype_usage, teacher_probabilities
from medssl.pretext.momentum import AutoMomentum, Teacher, first_momentum, momentum_at
from medssl.pretext.pairs import PAIR, MultiCropConfig, encode, named_chunks
from medssl.pretext.projection import Projection, pooled_channels, pooled_levels
from medssl.pretext.task import PretextTask, Step
from medssl.shapes import Shape3D
from medssl.views.masks import token_mask
from medssl.views.region import Region


class DINO(PretextTask):
    """Self-distillation over several crops, with an optional term for masked cells."""

    name = "dino"
    family = "self-distillation"

    class Config(MultiCropConfig):
        """Settings of dino."""

        prototypes: int = Field(
            default=1024,
            ge=2,
            le=131072,
            description="Directions that crops are assigned to. 1024 suits up to 20 000 scans; the paper's 65536 a "
            "million.",
        )
        features: int = Field(default=256, ge=8, le=8192, description="Length of the vectors before the prototypes.")
        student_temperature: float = Field(default=0.1, gt=0.0, le=1.0, description="Divides the student's scores.")
        teacher_temperature: float = Field(
            default=0.04,
            gt=0.0,
            le=1.0,
            description="Divides the teacher's scores; small values give confident targets.",
        )
        momentum: AutoMomentum = "auto"
        frozen_fraction: float = Field(
            default=0.02,
            ge=0.0,
            le=1.0,
            description="Fraction of the run in which the student's prototypes keep their initial values.",
        )
        centring: bool = Field(
            default=True,
            description="Subtract the running mean from the teacher's scores. Without it one prototype takes all.",
        )
        masked_weight: float = Field(
            default=0.0,
            ge=0.0,
            le=10.0,
            description="Weight of predicting the teacher's assignment of masked cells, which trains the coarsest "
            "level densely. 1 in iBOT.",
        )
        mask_ratio: float = Field(
            default=0.3,
            gt=0.0,
            lt=1.0,
            description="Fraction of the coarsest level's cells that are hidden from the student.",
        )

    config: Config
    frozen: Tensor

    def __init__(self, encoder: Encoder, config: Config) -> None:
        super().__init__(encoder, config)
        self.head = _Head(pooled_channels(encoder, config.pooled_levels), config)
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        self.centre = Centre(config.prototypes)
        self.cells = _Cells(encoder.channels[-1], config) if config.masked_weight > 0 else None
        self.register_buffer("frozen", torch.tensor(float(config.frozen_fraction > 0)))

    def automatic(self, patch: Shape3D, steps: int) -> Mapping[str, float]:
        """The teacher's momentum at the first step."""
        return first_momentum(steps, base=self.config.momentum)

    def views(self, region: Region) -> dict[str, Tensor]:
        """One (B, C, D, H, W) per crop; with the masked term also `hidden a` and `hidden b`, (B, 1, d, h, w) cells."""
        images = self.config.views(region)
        if self.cells is None:
            return images
        cells = [edge // step for edge, step in zip(images["a"].shape[2:], self.encoder.divisor, strict=True)]
        ratio, count = self.config.mask_ratio, math.prod(cells)
        hidden = {
            f"hidden {name}": token_mask(region.random, f"hidden {name}", tokens=count, ratio=ratio).view(-1, 1, *cells)
            for name in PAIR
        }
        return images | hidden

    def forward(self, views: dict[str, Tensor]) -> Step:
        """Loss of the batch; the pictures show the pair as the student sees it."""
        return replace(self.compare(self.embed(views)), pictures=self.config.pictures(self._with_holes(views)))

    def embed(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scores of all crops by the student, `student ...`, and of the pair by the teacher; of cells where masked."""
        levels, small = self.config.pooled_levels, self.config.small_names
        visible = self._with_holes(views)
        student = self.encoder(torch.cat([visible[name] for name in PAIR]))
        teacher = self.teacher(torch.cat([views[name] for name in PAIR]))
        out = named_chunks(self.head(pooled_levels(student, levels), self.frozen), PAIR, "student ")
        out |= named_chunks(self.teacher_head(pooled_levels(teacher, levels)), PAIR, "teacher ")
        if small:
            vectors = encode(self.encoder, views, small, levels=levels)
            out |= named_chunks(self.head(vectors, self.frozen, kind=1), small, "student ")
        if self.cells is not None:
            out |= named_chunks(self.cells.head(_by_cell(student[-1]), self.frozen), PAIR, "student cells ")
            out |= named_chunks(self.cells.teacher_head(_by_cell(teacher[-1])), PAIR, "teacher cells ")
            out |= {f"hidden {name}": views[f"hidden {name}"] for name in PAIR}
        return out

    def compare(self, embeddings: dict[str, Tensor]) -> Step:
        """Cross-entropy of the student's crops with the teacher's two crops; no crop is paired with itself."""
        config = self.config
        targets = {name: self._target(self.centre, embeddings[f"teacher {name}"]) for name in PAIR}
        energies, unrelated = [], []
        for name, target in targets.items():
            students = [embeddings[f"student {crop}"] for crop in config.crop_names if crop != name]
            energies += [cross_entropy(target, student, temperature=config.student_temperature) for student in students]
            unrelated.append(cross_entropy(target.roll(1, dims=0), students[0], temperature=config.student_temperature))
        energy = torch.stack(energies).mean(dim=0)  # (B,)
        loss, trivial, assigned = energy.mean(), math.log(config.prototypes), torch.cat(list(targets.values()))
        sharpness = entropy(assigned).mean()
        terms = {
            "teacher_entropy": sharpness,
            "teacher_entropy_fraction": sharpness / math.log(config.prototypes),  # 1: a uniform teacher
            "divergence": loss.detach() - sharpness,
            "prototypes_used": prototype_usage(assigned, across_ranks=self.training),
        }
        if self.cells is not None:
            masked = torch.stack([self._masked(self.cells.centre, embeddings, name) for name in PAIR]).mean()
            loss, trivial = loss + config.masked_weight * masked, trivial * (1 + config.masked_weight)
            terms["masked"] = masked.detach()
        return Step(
            loss=loss,
            energy=energy.detach(),
            negative_energy=torch.stack(unrelated).mean(dim=0).detach() if len(energy) > 1 else None,
            trivial_loss=trivial,  # a uniform student
            terms=terms,
            embeddings=torch.cat([embeddings[f"teacher {name}"] for name in PAIR]).detach(),
        )

    def after_step(self, step: int, total: int) -> None:
        """Update teacher and centre, after the step has used them as they were."""
        momentum = momentum_at(step, total, base=self.config.momentum)
        self.teacher.update(self.encoder, momentum)
        self.teacher_head.update(self.head, momentum)
        self.centre.update()
        self.frozen.fill_(float(step + 1 < self.config.frozen_fraction * total))
        if self.cells is not None:
            self.cells.teacher_head.update(self.cells.head, momentum)
            self.cells.centre.update()

    def exported_encoder(self) -> Encoder:
        """The teacher: an average over the last steps, and better than the student (Caron et al. 2021, section 5.2)."""
        teacher: Encoder = self.teacher.module  # type: ignore[assignment]
        return teacher

    def _with_holes(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """The pair with its hidden cells set to 0, the mean of a normalised scan."""
        if self.cells is None:
            return {name: views[name] for name in PAIR}
        return {
            name: views[name].masked_fill(
                F.interpolate(views[f"hidden {name}"].float(), size=views[name].shape[2:]).bool(), 0.0
            )
            for name in PAIR
        }

    def _target(self, centre: Centre, scores: Tensor, weight: Tensor | None = None) -> Tensor:
        if self.training and self.config.centring:
            centre.observe(scores, weight)
        return teacher_probabilities(scores, centre=centre.mean, temperature=self.config.teacher_temperature)

    def _masked(self, centre: Centre, embeddings: dict[str, Tensor], name: str) -> Tensor:
        """Mean over samples of the mean over a sample's hidden cells."""
        hidden = embeddings[f"hidden {name}"].flatten(1).float()
        target = self._target(centre, embeddings[f"teacher cells {name}"], hidden)
        student = embeddings[f"student cells {name}"]
        error = cross_entropy(target, student, temperature=self.config.student_temperature)
        return ((error * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)).mean()


class _Head(nn.Module):
    """Projector and prototypes: from a vector to scores."""

    def __init__(self, inputs: int, config: DINO.Config) -> None:
        super().__init__()
        self.project = Projection(inputs, config.features, hidden=config.hidden, layers=3, norm=config.norm, kinds=2)
        self.prototypes = Prototypes(config.features, config.prototypes)

    def forward(self, vectors: Tensor, frozen: Tensor | float = 0.0, kind: int = 0) -> Tensor:
        """(..., prototypes) cosines. kind: 0 for the pair, 1 for small crops."""
        out: Tensor = self.prototypes(self.project(vectors, kind), frozen)
        return out


class _Cells(nn.Module):
    """Parts of the masked term: heads for the cells of the coarsest level, and their centre."""

    def __init__(self, inputs: int, config: DINO.Config) -> None:
        super().__init__()
        self.head = _Head(inputs, config)
        self.teacher_head = Teacher(self.head)
        self.centre = Centre(config.prototypes)


def _by_cell(level: Tensor) -> Tensor:
    """(B, d*h*w, C) from (B, C, d, h, w)."""
    return level.flatten(2).mT


@hookimpl
def medssl_pretext_tasks() -> Iterable[type[PretextTask]]:
    """The task of this file."""
    return [DINO]
