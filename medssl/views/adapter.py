"""Any MONAI transform inside a task: per sample, with that sample's own random stream.

MONAI's transforms take no batches, and many run on the host; docs/data_path.md lists which. Prefer the batched
transforms of `medssl.views` where one exists.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medssl.errors import PluginError
from medssl.randomness import SampleRandom, generator


class PerSample:
    """A MONAI transform or Compose, applied to each sample of a batch.

    Its random state is set for every sample from (seed, sample number, name), so the result does not depend on the
    order of calls, on workers or on restarts.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, images: Tensor, random: SampleRandom, name: str) -> Tensor:
        """(B, C, D, H, W) to (B, C', D', H', W'); MONAI sees (C, D, H, W).

        Raises PluginError when the samples come out with different shapes.
        """
        results = []
        for image, number in zip(images, random.numbers, strict=True):
            self._seed(random.seed, number, name)
            # A copy, since some of MONAI's transforms write to their input (RandCoarseDropout).
            results.append(self.transform(image.clone()))
        return _stack(results, type(self.transform).__name__)

    def _seed(self, seed: int, number: int, name: str) -> None:
        from monai.transforms import Compose, Randomizable

        if isinstance(self.transform, (Randomizable, Compose)):
            # 32 bits: MONAI hands the seed to numpy's RandomState.
            self.transform.set_random_state(seed=int(generator(seed, number, f"{name}/monai").integers(2**32)))


def _stack(results: list[Any], transform: str) -> Tensor:
    # `as_tensor` of a MetaTensor is the plain tensor underneath, since a MetaTensor would slow down every later
    # operation; `torch.as_tensor` takes arrays.
    plain = [torch.as_tensor(r.as_tensor() if hasattr(r, "as_tensor") else r) for r in results]
    shapes = sorted({tuple(r.shape) for r in plain})
    if len(shapes) > 1:
        raise PluginError(
            f"{transform} made samples of different shapes (C, D, H, W): {shapes}. End it with a crop or resize to one "
            "size."
        )
    return torch.stack(plain)
