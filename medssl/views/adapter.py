"""Any MONAI transform inside a task: per sample, with that sample's own random stream.

MONAI's transforms know no batches and many of them work on the host; docs/data_path.md lists which. Prefer
`views/transforms.py` where there is a batched one.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from medssl.errors import PluginError
from medssl.randomness import SampleRandom, generator


class PerSample:
    """A MONAI transform or Compose, for arrays or for dictionaries, applied to each sample of a batch.

    The transform's random state is set for every sample from (seed, sample number, name): the result does not depend
    on the order of calls, on workers or on restarts. It gets a copy, as some of MONAI's write to their input
    (RandCoarseDropout), and the result comes back as a plain tensor on the device of the batch: a MetaTensor would
    slow every operation after it.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, images: Tensor, random: SampleRandom, name: str) -> Tensor:
        """(B, C, D, H, W) to (B, C', D', H', W'); MONAI sees (C, D, H, W).

        Raises PluginError when shapes come out different.
        """
        return _stack(
            [self._one(x.clone(), random, number, name) for x, number in _samples(images, random)], self._what()
        )

    def on_dict(self, batch: Mapping[Hashable, Tensor], random: SampleRandom, name: str) -> dict[Hashable, Tensor]:
        """The same for a dictionary transform and a dictionary of (B, C, D, H, W) tensors."""
        results = []
        for row, number in enumerate(random.numbers):
            results.append(self._one({key: value[row].clone() for key, value in batch.items()}, random, number, name))
        return {key: _stack([result[key] for result in results], self._what(key)) for key in batch}

    def _one(self, sample: Any, random: SampleRandom, number: int, name: str) -> Any:
        from monai.transforms import Compose, Randomizable

        if isinstance(self.transform, (Randomizable, Compose)):
            # 32 bits: MONAI hands the seed to numpy's RandomState.
            self.transform.set_random_state(seed=int(generator(random.seed, number, f"{name}/monai").integers(2**32)))
        return self.transform(sample)

    def _what(self, key: Hashable | None = None) -> str:
        return type(self.transform).__name__ + ("" if key is None else f", key '{key}'")


def _samples(images: Tensor, random: SampleRandom) -> list[tuple[Tensor, int]]:
    return list(zip(images, random.numbers, strict=True))


def _stack(results: list[Any], what: str) -> Tensor:
    # `as_tensor` of a MetaTensor is the plain tensor underneath; `torch.as_tensor` takes arrays.
    plain = [torch.as_tensor(r.as_tensor() if hasattr(r, "as_tensor") else r) for r in results]
    shapes = sorted({tuple(r.shape) for r in plain})
    if len(shapes) > 1:
        raise PluginError(
            f"{what} made samples of different shapes (C, D, H, W): {shapes}. End it with a crop or resize to one size."
        )
    return torch.stack(plain)
