"""Small numbers from the host to the device, without the host waiting for what the device is doing."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def on_device(values: Sequence[int] | Sequence[float] | npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """The values on the device: whole numbers as int64, all others as float32.

    `torch.tensor(values, device=...)`, and a list between the brackets of a tensor on a GPU, copy as well, but wait
    until the device has finished all it was given: a step would then stand still several times.
    """
    array = np.asarray(values)
    kind = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
    return torch.from_numpy(array.astype(kind)).to(device, non_blocking=True)


def chosen(rows: Sequence[int], device: torch.device) -> slice | Tensor:
    """An index of these rows, ascending, of a tensor on the device: a view where they are neighbours, else a copy."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return on_device(rows, device)
