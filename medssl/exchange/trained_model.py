"""What is handed over: the weights of a finished run, and what its records say about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medssl.encoders.encoder import Decoder, Encoder
from medssl.encoders.records import NetworkMetadata, stated_modalities, stated_patch
from medssl.encoders.weights import encoder_record, load_encoder, load_network
from medssl.errors import CheckpointError, UsageError
from medssl.runs.paths import RunPaths
from medssl.shapes import Shape3D, Spacing3D

# Metadata of a run that may travel with its weights: none of them names a scan, not even by its pseudonym.
PUBLIC_METADATA = (
    "task",
    "task_origin",
    "task_family",
    "init",
    "steps",
    "step",
    "selected",
    "patch",
    "scans",
    "cohort_digest",
    "store_policy",
)


@dataclass(frozen=True)
class TrainedModel:
    """The weights of a finished run.

    Attributes:
        encoder: What pretraining or fine-tuning left.
        decoder: The same, or None.
        metadata: What the run says about its training.
        network: Metadata of a fine-tuned model, else None.
    """

    encoder: Encoder
    decoder: Decoder | None
    metadata: dict[str, Any]
    network: NetworkMetadata | None = None

    @property
    def patch(self) -> Shape3D | None:
        """(D, H, W) voxels that the network saw in training, where the run says so."""
        if self.network is not None:
            return self.network.patch
        return stated_patch(self.metadata)

    @property
    def spacing_mm(self) -> Spacing3D | None:
        """Spacing of D, H, W in mm to which every scan was resampled; None where scans kept their own."""
        targets = self._targets_mm
        if len(targets) != 1 or "native" in targets:
            return None
        x, y, z = next(iter(targets))
        return float(z), float(y), float(x)

    @property
    def modalities_agree_on_spacing(self) -> bool:
        """Whether every scan was resampled alike, or none was."""
        return len(self._targets_mm) == 1

    @property
    def _targets_mm(self) -> set[Any]:
        """What the store's policy asks for the modalities of the training: spacings of X, Y, Z in mm, or 'native'."""
        policy = (self.network.store_policy if self.network else self.metadata.get("store_policy")) or {}
        by_modality, default = policy.get("spacing_mm") or {}, policy.get("other_spacing_mm", "native")
        targets = [by_modality.get(modality, default) for modality in self.modalities]
        targets = targets or [*by_modality.values(), default]
        return {tuple(target) if isinstance(target, list | tuple) else target for target in targets}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of the scans that the training saw; empty where the run does not say so."""
        return self.network.modalities if self.network is not None else stated_modalities(self.metadata)

    @property
    def public_metadata(self) -> dict[str, Any]:
        """What may leave with the weights; of a fine-tuned model also labels, patch and preprocessing."""
        metadata = {key: self.metadata[key] for key in PUBLIC_METADATA if key in self.metadata}
        metadata |= {"modalities": list(self.modalities)} if self.modalities else {}
        if self.network is not None:
            named = type(self.network).model_fields
            metadata["network"] = self.network.model_dump(mode="json", include=set(named))
        return metadata

    @property
    def label_names(self) -> dict[int, str]:
        """By channel of the output, the background first; empty for a pretrained encoder."""
        return {0: "background", **self.network.label_names} if self.network is not None else {}

    def test_image(self) -> Tensor:
        """(2, C, D, H, W) noise of the smallest size that every form of the network takes; for checks."""
        d, h, w = self.encoder.divisor
        generator = torch.Generator().manual_seed(0)
        shape = (2, self.encoder.description.in_channels, *(self.encoder.monai_size or (d, 2 * h, 2 * w)))
        return torch.randn(shape, generator=generator)


def open_trained_model(run: Path) -> TrainedModel:
    """The weights in a run folder: of the fine-tuned model where there is one, else of the pretrained encoder.

    Raises UsageError where there is no such folder, CheckpointError where the run has not finished.
    """
    if not run.is_dir():
        raise UsageError(f"There is no run folder {run}. `medssl runs` lists them.")
    paths = RunPaths(run)
    if paths.model_record.is_file():
        network, metadata = load_network(run)
        return TrainedModel(network.encoder, network.decoder, dict(metadata.model_extra or {}), metadata)
    if not paths.encoder_record.is_file():
        raise CheckpointError(
            f"{run} holds neither encoder.json nor model.json, so its training has not finished. Continue it with "
            "--resume."
        )
    encoder, decoder = load_encoder(run)
    return TrainedModel(encoder, decoder, encoder_record(run).metadata)
