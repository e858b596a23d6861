"""How large a patch a network sees."""

from collections.abc import Sequence

import numpy as np
import torch

from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume

STEP = 16  # what most encoders need; the automatic patch keeps to it
VOXELS_ON_GPU = 96**3
VOXELS_ON_CPU = 40**3  # about a second per step of a small network on two cores


def choose_patch(scans: Sequence[StoredVolume], asked: Shape3D | str) -> Shape3D:
    """Patch edges (D, H, W) in voxels, as asked or automatic.

    Automatic: the median shape of the scans, each edge cut to a multiple of 16, the longest edge shortened until the
    patch fits the device.
    """
    if not isinstance(asked, str):
        return asked
    limit = VOXELS_ON_GPU if torch.cuda.is_available() else VOXELS_ON_CPU
    median = np.median([scan.shape for scan in scans], axis=0)
    edges = [max(STEP, int(edge) // STEP * STEP) for edge in median]
    while np.prod(edges) > limit and max(edges) > STEP:
        edges[int(np.argmax(edges))] -= STEP
    return edges[0], edges[1], edges[2]
