"""The JSON files beside the weights: what was trained, on what, and what every tensor looks like."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medssl.encoders.encoder import EncoderDescription
from medssl.errors import CheckpointError
from medssl.formats import check_format
from medssl.shapes import Shape3D

MAX_RECORD_BYTES = 64 * 2**20
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
    """The content of encoder.json.

    Attributes:
        format: Version of the file.
        medssl: Release that wrote it.
        description: How to build the encoder again.
        channels: Features per level of the pyramid, finest first.
        strides: Of each level relative to the image, along D, H, W.
        metadata: Task, steps, data digest, store policy, ...: plain JSON values.
        tensors: Per tensor of encoder.safetensors its shape, dtype and digest.
        decoder: Of decoder.safetensors, where pretraining left one.
    """

    model_config = ConfigDict(frozen=True)
    format: Literal["medssl-encoder-2"] = "medssl-encoder-2"
    medssl: str = ""
    description: EncoderDescription
    channels: tuple[int, ...]
    strides: tuple[Shape3D, ...]
    metadata: dict[str, Any]
    tensors: dict[str, TensorRecord]
    decoder: DecoderRecord | None = None


class NetworkMetadata(BaseModel):
    """What a prediction needs to know of a fine-tuned network; further fields are kept as they come.

    Attributes:
        label_names: By label value, without the background.
        patch: Edges D, H, W of a window in voxels.
        overlap: Of neighbouring windows, as a fraction of the patch, in [0, 1).
        store_policy: Of the cohort: how scans are resampled and normalised; None where it was not stated.
        modalities: Of the training scans; empty where they were not stated.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    label_names: dict[int, str]
    patch: Shape3D
    overlap: float = Field(default=0.5, ge=0, lt=1)
    store_policy: dict[str, Any] | None = None
    modalities: tuple[str, ...] = ()


class NetworkRecord(BaseModel):
    """The content of model.json: as `EncoderRecord`, for a segmentation network."""

    model_config = ConfigDict(frozen=True)
    format: Literal["medssl-network-2"] = "medssl-network-2"
    medssl: str = ""
    description: EncoderDescription
    out_channels: int = OutChannels
    metadata: NetworkMetadata
    tensors: dict[str, TensorRecord]


def stated_patch(metadata: Mapping[str, Any]) -> Shape3D | None:
    """(D, H, W) voxels that an encoder saw in training, where its metadata say so."""
    edges = metadata.get("patch")
    if not isinstance(edges, list) or len(edges) != 3 or not all(isinstance(edge, int) for edge in edges):
        return None
    return edges[0], edges[1], edges[2]


def stated_modalities(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Modalities of the scans that a training saw, where its metadata say so."""
    names = metadata.get("modalities")
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list | tuple) else ()


R = TypeVar("R", EncoderRecord, NetworkRecord)


def read_record(path: Path, kind: type[R]) -> R:
    """The record of that kind.

    Raises CheckpointError where there is none, and where the file is something else or of another format.
    """
    if not path.is_file():
        raise CheckpointError(
            f"there is no {path.name} in {path.parent}. Give the folder of a finished run or of an export."
        )
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise CheckpointError(
            f"{path} is larger than {MAX_RECORD_BYTES >> 20} MiB, so medssl did not write it. Export the encoder again."
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as wrong:
        raise CheckpointError(
            f"{path} is not readable as JSON ({wrong}). Copy it again, or export the encoder again."
        ) from wrong
    expected = str(kind.model_fields["format"].default)
    found = content.get("format") if isinstance(content, dict) else None
    if str(found).startswith(expected.rstrip("0123456789")):
        remedy = "train again, or export the weights again"
        check_format(path, found, expected, writer=content.get("medssl"), remedy=remedy, error=CheckpointError)
    try:
        return kind.model_validate(content)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CheckpointError(
            f"{path} is not what medssl writes: {field}: {first['msg'].lower()}. Give the folder of a finished run, or "
            "export the encoder again."
        ) from wrong
