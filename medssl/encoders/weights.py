"""What outlives a training.

Weights as safetensors, and beside them what is needed to build the network again. No pickled code.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medssl.encoders.build import build_encoder
from medssl.encoders.encoder import Decoder, Encoder, EncoderDescription
from medssl.encoders.records import (
    DecoderRecord,
    EncoderRecord,
    NetworkMetadata,
    NetworkRecord,
    TensorRecord,
    read_record,
)
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.tensors import (
    check_finite,
    plain_state,
    read_tensors,
    record_tensors,
    unlike,
    write_json,
    write_tensors,
)
from medssl.errors import CheckpointError, ConfigError
from medssl.runs.paths import RunPaths


def save_encoder(
    folder: Path, encoder: Encoder, decoder: Decoder | None = None, *, metadata: Mapping[str, Any]
) -> None:
    """Write encoder.safetensors, encoder.json and, with a decoder, decoder.safetensors.

    The record is written last: a folder without it holds no encoder.

    Args:
        folder: Made where it is missing.
        encoder: What is saved.
        decoder: The decoder that pretraining trained with it, if any.
        metadata: Task, steps, data digest, store policy, ...: plain JSON values.

    Raises:
        CheckpointError: Weights are not finite, or the folder cannot be written.
    """
    paths = RunPaths(folder)
    encoder_state = plain_state(encoder)
    check_finite(encoder_state, what="the encoder")
    decoder_state = plain_state(decoder) if decoder is not None else {}
    check_finite(decoder_state, what="the decoder")
    record = EncoderRecord(
        medssl=version("medssl"),
        description=encoder.description,
        channels=encoder.channels,
        strides=encoder.strides,
        metadata=dict(metadata),
        tensors=record_tensors(encoder_state),
        decoder=DecoderRecord(out_channels=decoder.out_channels, tensors=record_tensors(decoder_state))
        if decoder is not None
        else None,
    )
    write_tensors(paths.encoder_weights, encoder_state)
    if decoder is not None:
        write_tensors(paths.decoder_weights, decoder_state)
    write_json(paths.encoder_record, record.model_dump(mode="json"))
    if decoder is None:
        paths.decoder_weights.unlink(missing_ok=True)


def load_encoder(folder: Path) -> tuple[Encoder, Decoder | None]:
    """Encoder, and the decoder where pretraining left one, as `save_encoder` wrote them. Raises CheckpointError."""
    paths, record = RunPaths(folder), encoder_record(folder)
    _check_architecture(record.description, record.tensors, record.decoder, path=paths.encoder_record)
    encoder = _build(record.description)
    encoder.load_state_dict(read_tensors(paths.encoder_weights, record.tensors))
    if record.decoder is None:
        return encoder, None
    decoder = encoder.make_decoder(record.decoder.out_channels)
    decoder.load_state_dict(read_tensors(paths.decoder_weights, record.decoder.tensors))
    return encoder, decoder


def encoder_record(folder: Path) -> EncoderRecord:
    """encoder.json of a folder: description, metadata, channels, strides, tensors. Raises CheckpointError."""
    return read_record(RunPaths(folder).encoder_record, EncoderRecord)


def read_description(folder: Path) -> EncoderDescription:
    """The architecture of the encoder in a folder. Raises CheckpointError."""
    return encoder_record(folder).description


def weights_digest(folder: Path) -> str:
    """A digest of the encoder's tensors, and of the decoder's where pretraining left one.

    Reads encoder.json only, whose digests `load_encoder` checks. Raises CheckpointError.
    """
    record = encoder_record(folder)
    parts = {"encoder": record.tensors, "decoder": record.decoder.tensors if record.decoder else {}}
    digests = {part: {name: tensor.digest for name, tensor in tensors.items()} for part, tensors in parts.items()}
    return hashlib.blake2b(json.dumps(digests, sort_keys=True).encode(), digest_size=16).hexdigest()


def save_network(folder: Path, network: SegmentationNetwork, *, metadata: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json.

    Args:
        folder: Made where it is missing.
        network: What is saved.
        metadata: The fields of `NetworkMetadata`, and any others as plain JSON values.

    Raises:
        CheckpointError: Weights are not finite, or the folder cannot be written.
    """
    paths, state = RunPaths(folder), plain_state(network)
    check_finite(state, what="the network")
    record = NetworkRecord(
        medssl=version("medssl"),
        description=network.encoder.description,
        out_channels=network.decoder.out_channels,
        metadata=NetworkMetadata.model_validate(dict(metadata)),
        tensors=record_tensors(state),
    )
    write_tensors(paths.model_weights, state)
    write_json(paths.model_record, record.model_dump(mode="json"))


def load_network(folder: Path) -> tuple[SegmentationNetwork, NetworkMetadata]:
    """The network as `save_network` wrote it, and what a prediction needs to know. Raises CheckpointError."""
    paths = RunPaths(folder)
    record = read_record(paths.model_record, NetworkRecord)
    decoder = DecoderRecord(out_channels=record.out_channels, tensors=_part(record, "decoder."))
    _check_architecture(record.description, _part(record, "encoder."), decoder, path=paths.model_record)
    encoder = _build(record.description)
    network = SegmentationNetwork(encoder, encoder.make_decoder(record.out_channels))
    network.load_state_dict(read_tensors(paths.model_weights, record.tensors))
    return network, record.metadata


def _part(record: NetworkRecord, prefix: str) -> dict[str, TensorRecord]:
    return {name.removeprefix(prefix): tensor for name, tensor in record.tensors.items() if name.startswith(prefix)}


def _check_architecture(
    description: EncoderDescription, tensors: Mapping[str, TensorRecord], decoder: DecoderRecord | None, *, path: Path
) -> None:
    """Compare names and shapes on torch's meta device, where nothing is allocated, however large the description."""
    with torch.device("meta"):
        encoder = _build(description)
        parts: list[tuple[nn.Module, Mapping[str, TensorRecord]]] = [(encoder, tensors)]
        if decoder:
            parts.append((encoder.make_decoder(decoder.out_channels), decoder.tensors))
    for module, recorded in parts:
        odd = unlike({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, recorded)
        if odd:
            raise CheckpointError(
                f"{path} describes a '{description.name}', but its weights are of another architecture: {len(odd)} "
                f"tensors do not fit (first: '{odd[0]}'). Take weights and description from the same run."
            )


def _build(description: EncoderDescription) -> Encoder:
    try:
        return build_encoder(description)
    except ConfigError as wrong:
        raise CheckpointError(f"the stored description of the encoder cannot be built: {wrong}") from wrong
