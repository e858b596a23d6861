"""What outlives a training.

Weights as safetensors, and beside them what is needed to build the network again. No pickled code.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from medssl.encoders.build import build_encoder
from medssl.encoders.encoder import Decoder, Encoder, EncoderDescription
from medssl.encoders.network import SegmentationNetwork
from medssl.encoders.records import DecoderRecord, EncoderRecord, NetworkFacts, NetworkRecord, TensorRecord, read_record
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


def save_encoder(folder: Path, encoder: Encoder, decoder: Decoder | None = None, *, facts: Mapping[str, Any]) -> None:
    """Write encoder.safetensors, encoder.json and, with a decoder, decoder.safetensors.

    facts: task, steps, data digest, normalisation, ...: plain JSON values. The record is written last: a folder without
    it holds no encoder. Raises CheckpointError for weights that are not finite and where the folder cannot be written.
    """
    state = plain_state(encoder)
    check_finite(state, what="the encoder")
    rest = plain_state(decoder) if decoder is not None else {}
    check_finite(rest, what="the decoder")
    record = EncoderRecord(
        description=encoder.description,
        channels=encoder.channels,
        strides=encoder.strides,
        facts=dict(facts),
        tensors=record_tensors(state),
        decoder=DecoderRecord(out_channels=decoder.out_channels, tensors=record_tensors(rest))
        if decoder is not None
        else None,
    )
    write_tensors(folder / "encoder.safetensors", state)
    if decoder is not None:
        write_tensors(folder / "decoder.safetensors", rest)
    _write_record(folder / "encoder.json", record)
    if decoder is None:
        (folder / "decoder.safetensors").unlink(missing_ok=True)


def load_encoder(folder: Path) -> tuple[Encoder, Decoder | None]:
    """Encoder, and the decoder where pretraining left one, as `save_encoder` wrote them. Raises CheckpointError."""
    record = encoder_record(folder)
    kept = record.decoder
    where = folder / "encoder.json"
    _check_architecture(
        record.description,
        record.tensors,
        kept.tensors if kept else None,
        kept.out_channels if kept else 1,
        where=where,
    )
    encoder = _build(record.description)
    encoder.load_state_dict(read_tensors(folder / "encoder.safetensors", record.tensors))
    if kept is None:
        return encoder, None
    decoder = encoder.make_decoder(kept.out_channels)
    decoder.load_state_dict(read_tensors(folder / "decoder.safetensors", kept.tensors))
    return encoder, decoder


def encoder_record(folder: Path) -> EncoderRecord:
    """encoder.json of a folder: description, facts, channels, strides, tensors. Raises CheckpointError."""
    return read_record(folder / "encoder.json", EncoderRecord)


def read_description(folder: Path) -> EncoderDescription:
    """The architecture of the encoder in a folder. Raises CheckpointError."""
    return encoder_record(folder).description


def weights_digest(folder: Path) -> str:
    """A digest of the encoder's tensors, and of the decoder's where pretraining left one: other weights, another
    digest. Reads encoder.json only, whose digests `load_encoder` checks. Raises CheckpointError.
    """
    record = encoder_record(folder)
    parts = {"encoder": record.tensors, "decoder": record.decoder.tensors if record.decoder else {}}
    digests = {part: {name: tensor.digest for name, tensor in tensors.items()} for part, tensors in parts.items()}
    return hashlib.blake2b(json.dumps(digests, sort_keys=True).encode(), digest_size=16).hexdigest()


def save_network(folder: Path, network: SegmentationNetwork, *, facts: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json.

    facts: the fields of `NetworkFacts`, and any others as plain JSON values. Raises CheckpointError for weights that
    are not finite and where the folder cannot be written.
    """
    state = plain_state(network)
    check_finite(state, what="the network")
    record = NetworkRecord(
        description=network.encoder.description,
        out_channels=network.decoder.out_channels,
        facts=NetworkFacts.model_validate(dict(facts)),
        tensors=record_tensors(state),
    )
    write_tensors(folder / "model.safetensors", state)
    _write_record(folder / "model.json", record)


def load_network(folder: Path) -> tuple[SegmentationNetwork, NetworkFacts]:
    """The network as `save_network` wrote it, and what a prediction needs to know. Raises CheckpointError."""
    where = folder / "model.json"
    record = read_record(where, NetworkRecord)
    _check_architecture(
        record.description, _part(record, "encoder."), _part(record, "decoder."), record.out_channels, where=where
    )
    encoder = _build(record.description)
    network = SegmentationNetwork(encoder, encoder.make_decoder(record.out_channels))
    network.load_state_dict(read_tensors(folder / "model.safetensors", record.tensors))
    return network, record.facts


def _part(record: NetworkRecord, prefix: str) -> dict[str, TensorRecord]:
    return {name.removeprefix(prefix): tensor for name, tensor in record.tensors.items() if name.startswith(prefix)}


def _write_record(path: Path, record: BaseModel) -> None:
    write_json(path, record.model_dump(mode="json"))


def _check_architecture(
    description: EncoderDescription,
    encoder_tensors: Mapping[str, TensorRecord],
    decoder_tensors: Mapping[str, TensorRecord] | None,
    out_channels: int,
    *,
    where: Path,
) -> None:
    """Compare names and shapes on torch's meta device, where nothing is allocated, however large the description."""
    with torch.device("meta"):
        encoder = _build(description)
        parts: list[tuple[nn.Module, Mapping[str, TensorRecord]]] = [(encoder, encoder_tensors)]
        if decoder_tensors is not None:
            parts.append((encoder.make_decoder(out_channels), decoder_tensors))
    for module, recorded in parts:
        odd = unlike({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, recorded)
        if odd:
            raise CheckpointError(
                f"{where} describes a '{description.name}', but its weights are of another architecture: {len(odd)} "
                "tensors do not "
                f"fit (first: '{odd[0]}'). Take weights and description from the same run."
            )


def _build(description: EncoderDescription) -> Encoder:
    try:
        return build_encoder(description)
    except ConfigError as wrong:
        raise CheckpointError(f"the stored description of the encoder cannot be built: {wrong}") from wrong
