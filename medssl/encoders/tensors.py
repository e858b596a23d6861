"""Tensors on disk.

Safetensors files that are written whole or not at all, and read only when they are what their record says.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medssl.encoders.records import TensorRecord
from medssl.errors import CheckpointError
from medssl.files import explain_write_errors, write_bytes

WRAPPERS = ("_forward_module.", "_orig_mod.", "module.")  # Lightning Fabric, torch.compile, DistributedDataParallel


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """State dict on the CPU, contiguous, detached, without the prefixes that wrappers add."""
    state = {}
    for name, tensor in module.state_dict().items():
        for wrapper in WRAPPERS:
            name = name.replace(wrapper, "")
        # channels_last_3d weights are not contiguous, and safetensors stores contiguous ones only.
        state[name] = tensor.detach().cpu().contiguous()
    return state


def check_finite(state: Mapping[str, Tensor], *, what: str) -> None:
    """Raise CheckpointError where a weight is NaN or infinite: such a network gives nothing but NaN."""
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"{what} holds NaN or infinite weights in {len(broken)} of {len(state)} tensors (first: {broken[0]}). "
            "The training diverged: lower optim.lr, or resume from an earlier checkpoint."
        )


def record_tensors(state: Mapping[str, Tensor]) -> dict[str, TensorRecord]:
    """Per tensor its shape, dtype and a digest of its bytes."""
    return {
        name: TensorRecord(
            shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."), digest=_digest(tensor)
        )
        for name, tensor in state.items()
    }


def _digest(tensor: Tensor) -> str:
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data.data, digest_size=16).hexdigest()


def write_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, complete or not at all, and its folder. Raises CheckpointError."""
    from safetensors.torch import save

    _write(path, save(dict(state), metadata={"format": "pt"}))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, complete or not at all, and its folder. Raises CheckpointError."""
    _write(path, json.dumps(content, indent=1, allow_nan=False).encode())


def _write(path: Path, content: bytes) -> None:
    with explain_write_errors(path, error=CheckpointError):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content, error=CheckpointError)


def read_tensors(path: Path, recorded: Mapping[str, TensorRecord]) -> dict[str, Tensor]:
    """Tensors of a safetensors file whose names, shapes and contents are those recorded. Raises CheckpointError."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(
            f"there is no {path.name} in {path.parent}. Its JSON file is there, so copy the weights beside it."
        )
    try:
        # The header names every shape, and its sum is checked against the length of the file before anything is
        # allocated.
        with safe_open(path, framework="pt", device="cpu") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
            _compare_shapes(path, shapes, recorded)
            state = {name: file.get_tensor(name) for name in shapes}
    except SafetensorError as wrong:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({wrong}). Copy it again, or export the encoder again."
        ) from wrong
    for name, tensor in state.items():
        if _digest(tensor) != recorded[name].digest:
            raise CheckpointError(
                f"tensor '{name}' in {path} is not the one that its JSON file describes. "
                "The two files come from different runs, or one is damaged: copy both again."
            )
    return state


def _compare_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], recorded: Mapping[str, TensorRecord]) -> None:
    odd = unlike(shapes, recorded)
    if odd:
        raise CheckpointError(
            f"{path} and its JSON file disagree about {len(odd)} tensors (first: '{odd[0]}'). They come from different "
            "runs: copy both again."
        )


def unlike(shapes: Mapping[str, tuple[int, ...]], recorded: Mapping[str, TensorRecord]) -> list[str]:
    """Names that only one side has; where there are none, names whose shapes differ."""
    return sorted(set(shapes) ^ set(recorded)) or [name for name in shapes if shapes[name] != recorded[name].shape]
