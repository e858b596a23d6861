"""The JSON files beside the weights: what was trained, on what, and what every tensor looks like."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medssl.encoders.encoder import EncoderDescription
from medssl.errors import CheckpointError
from medssl.shapes import Shape3D

LARGEST_RECORD_BYTES = 64 * 2**20
MAX_OUT_CHANNELS = 65536

OutChannels = Field(ge=1, le=MAX_OUT_CHANNELS)


class TensorRecord(BaseModel):
    """One tensor: enough to know it again. digest: blake2b of its bytes."""

    shape: tuple[int, ...]
    dtype: str
    digest: str


class DecoderRecord(BaseModel):
    """The decoder that pretraining left."""

    out_channels: int = OutChannels
    tensors: dict[str, TensorRecord]


class EncoderRecord(BaseModel):
    """encoder.json.

    Channels and strides: per level of the pyramid, finest first. facts: task, steps, data digest, normalisation, ...
    """

    model_config = ConfigDict(frozen=True)
    format: Literal["medssl-encoder-1"] = "medssl-encoder-1"
    description: EncoderDescription
    channels: tuple[int, ...]
    strides: tuple[Shape3D, ...]
    facts: dict[str, Any]
    tensors: dict[str, TensorRecord]
    decoder: DecoderRecord | None = None


class NetworkFacts(BaseModel):
    """What a prediction needs to know of a fine-tuned network; further facts are kept as they come.

    label_names: by label value, without the background. patch: (D, H, W) voxels. overlap: of sliding windows, as a
    share of the patch. store_policy: of the cohort, how scans are resampled; None where it was not said. modalities: of
    the training scans; empty where it was not said.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    label_names: dict[int, str]
    patch: Shape3D
    overlap: float = Field(default=0.5, ge=0, lt=1)
    store_policy: dict[str, Any] | None = None
    modalities: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, facts: Any) -> Any:
        """Models of before say the most frequent modality only."""
        if not isinstance(facts, dict) or "modalities" in facts:
            return facts
        return {**facts, "modalities": stated_modalities(facts)}


class NetworkRecord(BaseModel):
    """model.json."""

    model_config = ConfigDict(frozen=True)
    format: Literal["medssl-network-1"] = "medssl-network-1"
    description: EncoderDescription
    out_channels: int = OutChannels
    facts: NetworkFacts
    tensors: dict[str, TensorRecord]


def stated_patch(facts: Mapping[str, Any]) -> Shape3D | None:
    """(D, H, W) voxels that an encoder saw in training, where its facts say so."""
    edges = facts.get("patch")
    if not isinstance(edges, list) or len(edges) != 3 or not all(isinstance(edge, int) for edge in edges):
        return None
    return edges[0], edges[1], edges[2]


def stated_modalities(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Modalities of the scans that a training saw, where its facts say so. Facts of before have the most frequent one
    only.
    """
    several = facts.get("modalities") or [facts.get("modality")]
    return tuple(name for name in several if isinstance(name, str)) if isinstance(several, list | tuple) else ()


R = TypeVar("R", EncoderRecord, NetworkRecord)


def read_record(path: Path, kind: type[R]) -> R:
    """The record of that kind. Raises CheckpointError where there is none, or where the file is something else."""
    if not path.is_file():
        raise CheckpointError(
            f"there is no {path.name} in {path.parent}. Give the folder of a finished run or of an export."
        )
    if path.stat().st_size > LARGEST_RECORD_BYTES:
        raise CheckpointError(
            f"{path} is larger than {LARGEST_RECORD_BYTES >> 20} MiB, so medssl did not write it. Export the encoder "
            "again."
        )
    try:
        return kind.model_validate(json.loads(path.read_bytes()))
    except ValidationError as wrong:
        first = wrong.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise CheckpointError(
            f"{path} is not what medssl writes: {place}: {first['msg'].lower()}. Give the folder of a finished run, or "
            "export the encoder again."
        ) from wrong
    except (ValueError, RecursionError) as wrong:
        raise CheckpointError(
            f"{path} is not readable as JSON ({wrong}). Copy it again, or export the encoder again."
        ) from wrong
