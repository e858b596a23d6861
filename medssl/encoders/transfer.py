"""Weights from one network into another, with an account of every tensor and a proof that the forward pass agrees."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medssl.encoders.tensors import WRAPPERS
from medssl.errors import CheckpointError

Outcome = Literal["matched", "reshaped", "mismatched", "missing", "left over"]

OUTCOMES: tuple[Outcome, ...] = ("matched", "reshaped", "mismatched", "missing", "left over")
STEM_DIMENSIONS = 5  # (out, in, D, H, W) of a 3D convolution


@dataclass(frozen=True)
class Entry:
    """What became of one tensor. Shapes are None on the side where the tensor does not exist."""

    name: str
    outcome: Outcome
    source_shape: tuple[int, ...] | None = None
    target_shape: tuple[int, ...] | None = None
    note: str = ""


@dataclass(frozen=True)
class TransferReport:
    """Account of one transfer.

    Attributes:
        what: Which part, in words: 'encoder'.
        entries: One per tensor of either side.
        prefix: What was removed from the source's names.
    """

    what: str
    entries: tuple[Entry, ...]
    prefix: str = ""

    def names(self, outcome: Outcome) -> tuple[str, ...]:
        """Names of the tensors with that outcome."""
        return tuple(entry.name for entry in self.entries if entry.outcome == outcome)

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors had each outcome."""
        counted = Counter(entry.outcome for entry in self.entries)
        return {outcome: counted[outcome] for outcome in OUTCOMES}

    @property
    def complete(self) -> bool:
        """Whether every tensor of the target was filled."""
        return not self.names("missing") and not self.names("mismatched")

    def as_dict(self) -> dict[str, Any]:
        """For the run's record: plain JSON values, every tensor by name."""
        rows = [
            {"name": e.name, "outcome": e.outcome, **_shapes(e), **({"note": e.note} if e.note else {})}
            for e in self.entries
        ]
        return {"what": self.what, "prefix": self.prefix, "counts": self.counts, "tensors": rows}

    def __str__(self) -> str:
        """The counts, and each tensor that was not simply matched."""
        width = max(len(entry.name) for entry in self.entries)
        odd = [e for e in self.entries if e.outcome != "matched"]
        rows = [f"  {e.outcome:<10}  {e.name:<{width}}  {_arrow(e)}  {e.note}".rstrip() for e in odd]
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items() if count)
        cut = f" (prefix '{self.prefix}' removed)" if self.prefix else ""
        return "\n".join([f"{self.what}: {counts}{cut}", *rows])


def transfer(source_state: Mapping[str, Tensor], target: nn.Module, *, what: str) -> TransferReport:
    """Copy every tensor that fits into `target`, in place, and report on each.

    A prefix that all of the source's names share with no name of the target is removed. A convolution over one input
    channel fills one over C channels by repeating it and dividing by C, so that C equal channels give the same
    response.

    Args:
        source_state: Tensors to copy, by name.
        target: The module to fill.
        what: What it is, for the report: 'encoder', 'decoder'.

    Raises:
        CheckpointError: No tensor fits.
    """
    target_state = target.state_dict()
    source, prefix = _without_prefix(source_state, target_state)
    entries = [_fill(name, tensor, source.get(name)) for name, tensor in target_state.items()]
    unused = [name for name in source if name not in target_state]
    entries += [Entry(name, "left over", source_shape=tuple(source[name].shape)) for name in unused]
    report = TransferReport(what, tuple(entries), prefix)
    if not report.names("matched") and not report.names("reshaped"):
        raise CheckpointError(
            f"no tensor of the source fits the {what}: the source has {_sample(source_state)}, the {what} has "
            f"{_sample(target_state)}. Take weights of the same architecture and size."
        )
    return report


def check_forward_equality(source: nn.Module, target: nn.Module, image: Tensor, *, tolerance: float = 1e-4) -> float:
    """Largest difference between the outputs of two networks for one image, relative to the largest output.

    Both run in evaluation mode and float32, and return to the mode they were in.

    Args:
        source: The network that weights came from.
        target: The network that they were put into.
        image: (B, C, D, H, W) for `source`. Where `target` takes more channels than a 1-channel image has, it gets the
            image repeated.
        tolerance: The largest difference that counts as rounding.

    Raises:
        CheckpointError: The outputs differ by more.
    """
    wide = image.repeat(1, _repeats(target, image), 1, 1, 1)
    source_maps, target_maps = _outputs(source, image), _outputs(target, wide)
    if [output.shape for output in source_maps] != [output.shape for output in target_maps]:
        raise CheckpointError(
            "the two networks give outputs of different shapes, so they are not the same. Compare their options."
        )
    worst = max(_difference(*maps) for maps in zip(source_maps, target_maps, strict=True))
    if not worst <= tolerance:  # also true for NaN
        raise CheckpointError(
            f"after the transfer the outputs differ by {worst:.2g} of their size, and at most {tolerance:.2g} is "
            "rounding. Not every tensor arrived: see the transfer report."
        )
    return worst


def _fill(name: str, target: Tensor, source: Tensor | None) -> Entry:
    shape = tuple(target.shape)
    if source is None:
        return Entry(name, "missing", target_shape=shape)
    source_shape = tuple(source.shape)
    with torch.no_grad():
        if source_shape == shape:
            target.copy_(source)
            return Entry(name, "matched", source_shape, shape)
        if _is_wider_stem(source_shape, shape):
            channels = shape[1]
            target.copy_(source.repeat(1, channels, 1, 1, 1) / channels)
            how = f"1 channel repeated {channels} times and divided by {channels}"
            return Entry(name, "reshaped", source_shape, shape, how)
    return Entry(name, "mismatched", source_shape, shape, "left as it was")


def _is_wider_stem(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    if len(source) != STEM_DIMENSIONS or len(target) != STEM_DIMENSIONS:
        return False
    return source[1] == 1 < target[1] and source[0] == target[0] and source[2:] == target[2:]


def _without_prefix(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The source's tensors under the names they have without the prefix that matches most of the target's names."""
    prefixes = {""} | set(WRAPPERS)
    for name in source:
        parts = name.split(".")
        prefixes |= {".".join(parts[:count]) + "." for count in range(1, min(len(parts), 4))}

    def matches(prefix: str) -> int:
        return sum(name.startswith(prefix) and name[len(prefix) :] in target for name in source)

    best = max(sorted(prefixes, key=len), key=matches)  # among equals the shortest
    return {name.removeprefix(best): tensor for name, tensor in source.items()}, best


def _repeats(target: nn.Module, image: Tensor) -> int:
    """How often a 1-channel image is repeated to have the channels that a network takes."""
    description = getattr(target, "description", None) or getattr(getattr(target, "encoder", None), "description", None)
    if description is None or image.shape[1] != 1:
        return 1
    return int(description.in_channels)


def _outputs(network: nn.Module, image: Tensor) -> list[Tensor]:
    training = network.training
    network.eval()
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        out = network(image.float())
    network.train(training)
    return [out] if isinstance(out, Tensor) else list(out)


def _difference(expected: Tensor, actual: Tensor) -> float:
    scale = max(float(expected.abs().max()), 1e-12)
    return float((expected - actual).abs().max()) / scale


def _sample(state: Mapping[str, Tensor]) -> str:
    names = [f"'{name}' {list(state[name].shape)}" for name in list(state)[:2]]
    return f"{len(state)} tensors ({', '.join(names)}, ...)" if names else "no tensors"


def _shapes(entry: Entry) -> dict[str, list[int]]:
    shapes = {"source_shape": entry.source_shape, "target_shape": entry.target_shape}
    return {key: list(shape) for key, shape in shapes.items() if shape is not None}


def _arrow(entry: Entry) -> str:
    return f"{_text(entry.source_shape)} -> {_text(entry.target_shape)}"


def _text(shape: tuple[int, ...] | None) -> str:
    return "x".join(str(edge) for edge in shape) or "scalar" if shape is not None else "nothing"
