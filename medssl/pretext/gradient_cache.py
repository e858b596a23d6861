"""Exact gradients of a batch that does not fit in memory, by the gradient cache of Gao et al. 2021 (arXiv 2101.06983).

Plain accumulation over chunks shows the loss only the negatives within a chunk. The gradient cache costs a second
forward pass and gives the gradient of the whole batch, to rounding.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.errors import ConfigError
from medssl.pretext.projection import BatchNorm
from medssl.pretext.task import Compares, Step, Views

Sync = Callable[[bool], AbstractContextManager[object]]


def backward_in_chunks(
    task: nn.Module,
    views: Views,
    *,
    chunk: int,
    embed: Callable[[Views], Views] | None = None,
    backward: Callable[[Tensor], None] = Tensor.backward,
    accumulating: Sync = lambda _: nullcontext(),
) -> Step:
    """Step of a batch, with its gradient added to the parameters of `task`; holds the graph of one chunk at a time.

    Args:
        task: has `embed` and `compare`; `compare` may use no parameters.
        views: the whole batch.
        chunk: samples per chunk.
        embed: `task.embed` as the distributed wrapper exposes it; `task.embed` itself by default.
        backward: the strategy's backward pass, which handles precision and loss scaling.
        accumulating: `accumulating(True)` is a context in which gradients are not averaged over ranks yet.

    Raises:
        ConfigError: as `check_chunks`.
    """
    # The loss depends on the parameters only through the embeddings z, so dL/dw = sum over chunks of dz_c/dw . dL/dz_c
    # (Gao et al. 2021, section 3).
    # 1. Embed all chunks without a graph.
    # 2. Compute the loss of all embeddings, which are small, and dL/dz.
    # 3. Embed each chunk again with its graph, and backpropagate <z_c, dL/dz_c>, whose gradient is the chunk's term.
    # The second pass must draw the same dropout masks as the first, or z_c would not be what dL/dz_c belongs to: hence
    # the random state of each chunk. Ranks synchronise once, in the last chunk.
    comparing = check_chunks(task)
    embed = embed or comparing.embed
    chunks = list(split(views, chunk))
    states = []
    with torch.no_grad():
        first = []
        for part in chunks:
            states.append(_random_state(part))
            first.append(embed(part))
    joined = {name: torch.cat([part[name] for part in first]) for name in first[0]}
    leaves = {name: value.requires_grad_(value.is_floating_point()) for name, value in joined.items()}
    step = comparing.compare(leaves)
    step.loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    for number, (part, state, cached) in enumerate(zip(chunks, states, split(gradients, chunk), strict=True)):
        with accumulating(number < len(chunks) - 1), _replayed(state):
            again = embed(part)
            backward(_inner_product(again, cached))
    return step


def check_chunks(task: nn.Module) -> Compares:
    """The task, if the gradient of its chunks is that of the whole batch.

    Raises:
        ConfigError: it does not split into `embed` and `compare`, or a batch norm in it would see other statistics.
    """
    if not isinstance(task, Compares):
        raise ConfigError(
            f"The task {getattr(task, 'name', type(task).__name__)} does not split into embed and compare, so its "
            "batch cannot be taken in chunks. Switch the gradient cache off (gradient_cache=0)."
        )
    check_no_batch_norm(task)
    return task


def check_no_batch_norm(task: nn.Module) -> None:
    """Raise ConfigError that names the first batch norm in training mode."""
    for name, module in task.named_modules():
        if isinstance(module, (_BatchNorm, BatchNorm)) and module.training:
            raise ConfigError(
                f"{name} is a batch norm, which sees other statistics in every chunk of a batch: the gradient cache "
                "would be wrong. Use an encoder with instance, group or layer norm and task.norm=layer, or switch the "
                "cache off (gradient_cache=0)."
            )


def split(views: Mapping[str, Tensor], chunk: int) -> Iterator[Views]:
    """The same tensors, `chunk` samples at a time."""
    samples = len(next(iter(views.values())))
    for first in range(0, samples, chunk):
        yield {name: value[first : first + chunk] for name, value in views.items()}


def _inner_product(embeddings: Views, gradients: Views) -> Tensor:
    """<z_c, dL/dz_c>: a scalar whose gradient is this chunk's term of the batch's gradient."""
    terms = [(embeddings[name] * gradient.to(embeddings[name].dtype)).sum() for name, gradient in gradients.items()]
    return torch.stack(terms).sum()


def _random_state(part: Views) -> tuple[Tensor, Tensor | None, torch.device]:
    device = next(iter(part.values())).device
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None, device


@contextmanager
def _replayed(state: tuple[Tensor, Tensor | None, torch.device]) -> Iterator[None]:
    """Within it, dropout draws what it drew in the first pass; afterwards the generators are as before."""
    host, cuda, device = state
    with torch.random.fork_rng([device] if cuda is not None else []):
        torch.set_rng_state(host)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        yield
