"""A batch of boxes on the device, from which a task cuts its views."""

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.errors import PluginError
from medssl.loading.loader import RegionBatch
from medssl.randomness import SampleRandom
from medssl.shapes import Shape3D
from medssl.views.on_device import chosen
from medssl.views.sampling import inside_scan, resample, window


class Region:
    """The boxes of one batch. Patches are cut by name, as the task's `crops` declared them.

    Padding rule: voxels beyond the scan have the normalised value of `low`, the darkest of the scan (air). A window of
    whole voxels is sliced, bit for bit; a rotated or zoomed one is interpolated linearly and falls to the padding value
    within one voxel beyond the last centres. `valid` marks the voxels in the scan, for losses.

    Attributes:
        random: random numbers of this batch's samples.
        spacing_mm: (B, 3) along d, h, w of the stored scan.
        numbers: sample numbers in the stream.
        scan_ids: per sample.
        device: where patches are made.
    """

    def __init__(self, batch: RegionBatch, *, device: torch.device, seed: int) -> None:
        self._batch, self.device = batch.received(device), device
        self.numbers, self.scan_ids = batch.numbers, batch.scan_ids
        self.random = SampleRandom(seed, batch.numbers, device)
        self.spacing_mm = batch.spacing_mm.to(device, non_blocking=True)

    def crop(self, name: str) -> Float[Tensor, "b c d h w"]:
        """(B, C, D, H, W) float32, normalised, ready for a network; memory of its own, free to be written to."""
        return self._cut(name, self._image, self._pad_value, mode="bilinear")

    def label(self, name: str) -> Int[Tensor, "b 1 d h w"]:
        """(B, 1, D, H, W) int64 label values at the nearest voxels; 0 beyond the scan.

        Raises PluginError when none were read.
        """
        nothing = torch.zeros(len(self.numbers), device=self.device)
        return self._cut(name, self._label_boxes, nothing, mode="nearest").long()

    def valid(self, name: str) -> Bool[Tensor, "b 1 d h w"]:
        """(B, 1, D, H, W), true where the patch lies in the scan."""
        return inside_scan(self.matrix(name), self.size(name), self.scan_shape)

    @property
    def scan_shape(self) -> Float[Tensor, "b 3"]:
        """(B, 3) voxels along d, h, w of the whole stored scan."""
        return self._batch.scan_shape.to(self.device, torch.float32, non_blocking=True)

    def matrix(self, name: str) -> Float[Tensor, "b 3 4"]:
        """(B, 3, 4) patch voxel (d, h, w, 1) to voxel (d, h, w) of the scan, for tasks that compare positions."""
        matrix = self._to_box(name).clone()
        matrix[:, :, 3] += self._batch.start
        return matrix.to(self.device, non_blocking=True)

    def between(self, name: str, target: str) -> Float[Tensor, "b 3 4"]:
        """(B, 3, 4) voxel (d, h, w, 1) of crop `name` to voxel of crop `target`, computed in double precision on the
        host.
        """
        source_to_box, target_to_box = self._to_box(name).double(), self._to_box(target).double()
        from_box = torch.linalg.inv(target_to_box[:, :, :3])
        linear = from_box @ source_to_box[:, :, :3]
        shift = from_box @ (source_to_box[:, :, 3:] - target_to_box[:, :, 3:])
        return torch.cat([linear, shift], dim=2).float().to(self.device, non_blocking=True)

    def size(self, name: str) -> Shape3D:
        """(D, H, W) of a crop."""
        self._to_box(name)
        return self._batch.sizes[name]

    @property
    def crop_names(self) -> tuple[str, ...]:
        """Names that `crop` knows."""
        return tuple(self._batch.crops)

    def _to_box(self, name: str) -> Tensor:
        if name not in self._batch.crops:
            declared = ", ".join(self._batch.crops)
            raise PluginError(f"the crop '{name}' was not declared. The task's `crops` declares: {declared}.")
        return self._batch.crops[name]

    @cached_property
    def _pad_value(self) -> Tensor:
        """(B,) normalised value beyond the scan."""
        low, _, mean, std = self._batch.normalisation.unbind(dim=1)
        return ((low - mean) / std).to(self.device, non_blocking=True)

    @cached_property
    def _image(self) -> Tensor:
        """(B, 1, D, H, W) normalised boxes; each filled up with its padding value beyond its own extent."""
        low, high, mean, std = self._batch.normalisation.unbind(dim=1)
        factors = torch.stack(
            [self._batch.scale / std, (self._batch.offset - mean) / std, (low - mean) / std, (high - mean) / std]
        ).to(self.device, non_blocking=True)
        scale, offset, lowest, highest = factors.view(4, -1, 1, 1, 1, 1)
        image = self._padded(self._batch.voxels, torch.float32).mul_(scale).add_(offset).clamp_(lowest, highest)
        _fill_beyond(image, self._batch.box_shape, self._pad_value)
        return image

    @cached_property
    def _label_boxes(self) -> Tensor:
        """(B, 1, D, H, W) uint8, 0 beyond each sample's own box."""
        if self._batch.labels is None:
            raise PluginError("a label was requested, but this training reads none. Only fine-tuning reads labels.")
        labels = self._padded(self._batch.labels, torch.uint8)
        _fill_beyond(labels, self._batch.box_shape, torch.zeros(len(labels), device=self.device))
        return labels

    def _padded(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, 1, D, H, W) of the largest box, each sample's own from the origin; what lies beyond is not written."""
        shape = self._batch.box_shape.amax(dim=0).tolist()
        out = torch.empty((len(self.numbers), 1, *shape), dtype=dtype, device=self.device)
        for row, box in zip(out, self._batch.boxes(flat), strict=True):
            d, h, w = box.shape
            row[0, :d, :h, :w].copy_(box)
        return out

    def _cut(self, name: str, volumes: Tensor, pad_value: Tensor, *, mode: str) -> Tensor:
        to_box, size = self._to_box(name), self._batch.sizes[name]
        exact = self._batch.exact[name]
        boxes = self._batch.box_shape.tolist()
        out = torch.empty((len(volumes), volumes.shape[1], *size), dtype=volumes.dtype, device=self.device)
        for row in exact.nonzero()[0].tolist():
            d, h, w = boxes[row]
            out[row] = window(
                volumes[row, :, :d, :h, :w], to_box[row], size, pad_value=pad_value[row].to(volumes.dtype)
            )
        rows = (~exact).nonzero()[0].tolist()
        if not rows:
            return out
        # grid_sample pads with zero: a shift there and back makes zero mean the padding value.
        shift = pad_value.view(-1, 1, 1, 1, 1)
        where = chosen(rows, self.device)
        matrix = to_box[chosen(rows, to_box.device)].to(self.device, non_blocking=True)
        cut = resample(volumes[where] - shift[where], matrix, size, mode=mode).add_(shift[where])
        out[where] = cut.to(volumes.dtype)
        return out


def _fill_beyond(image: Tensor, box_shape: Tensor, pad_value: Tensor) -> None:
    """Write the padding value where a row of the batch is larger than its own box; shapes are known on the host."""
    for row, box in enumerate(box_shape.tolist()):
        for axis, length in enumerate(box):
            if length < image.shape[2 + axis]:
                image[row].narrow(1 + axis, length, image.shape[2 + axis] - length).fill_(pad_value[row])
