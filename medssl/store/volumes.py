"""Scans in the store: written once, read box by box.

A file holds the voxels in tensor axis order (D, H, W) = (Z, Y, X), in C order: the same bytes in memory as NIfTI's (X,
Y, Z) in Fortran order, so a read needs no transpose. Its affine maps (X, Y, Z) indices, as everywhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medssl.errors import DataError
from medssl.formats import check_format
from medssl.geometry import Volume, same_grid, spacing_mm, to_tensor_axes
from medssl.shapes import Index3D, Shape3D, Spacing3D
from medssl.store import blocks, flat
from medssl.store.body import BodyMask, Box, find_body
from medssl.store.container import Container, Contents, damaged, missing
from medssl.store.normalisation import Normalisation, normalisation_of
from medssl.store.policy import Packing, StorePolicy, to_store_grid
from medssl.store.quantise import quantisation, quantised

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
# Sampled voxels of each label class, so that a crop can be centred on one without reading the label.
VOXELS_PER_CLASS = 512

CONTAINERS: Mapping[Packing, Container] = {"lz4": blocks, "none": flat}


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """A scan in the store without its voxels: a few hundred bytes for a worker, which opens the file itself.

    Attributes:
        scan_id: names the file.
        folder: of the store.
        shape: (D, H, W) voxels.
        affine_ras_mm: (4, 4), stored (X, Y, Z) index to RAS mm.
        modality: as in the manifest.
        scale: physical value = stored voxel * scale + offset.
        offset: see scale.
        normalisation: in physical units.
        body_box: (start, stop) voxels (d, h, w) of the box around the body.
        has_label: whether a label lies beside the scan.
        class_voxels: per label value an (N, 3) sample of its voxels (d, h, w).
        body_mask: coarse cells that hold body; None in the copies that go to workers.
        packing: how the file is packed.
    """

    scan_id: str
    folder: Path
    shape: Shape3D
    affine_ras_mm: npt.NDArray[np.float64]
    modality: str
    scale: float
    offset: float
    normalisation: Normalisation
    body_box: Box
    has_label: bool
    class_voxels: Mapping[int, npt.NDArray[np.int32]]
    body_mask: BodyMask | None = None
    packing: Packing = "lz4"

    @property
    def spacing_mm(self) -> Spacing3D:
        """Edge lengths of a voxel along D, H, W in mm."""
        x, y, z = spacing_mm(self.affine_ras_mm)
        return z, y, x

    def read(self, start: Index3D, stop: Index3D, *, out: npt.NDArray[np.int16] | None = None) -> npt.NDArray[np.int16]:
        """Stored voxels (d, h, w) of the box [start, stop). Raises DataError if the file is missing or damaged.

        out: array of that shape to read into and return, if it is contiguous.
        """
        return self._box(image_path(self.folder, self.scan_id, self.packing), start, stop, np.dtype(np.int16), out)

    def read_label(
        self, start: Index3D, stop: Index3D, *, out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Label values (d, h, w) of the box [start, stop), as `read`. Raises DataError if the scan has no label."""
        if not self.has_label:
            raise DataError(f"scan {self.scan_id} has no label in the store. Ingest the cohort again with --label-dir.")
        return self._box(label_path(self.folder, self.scan_id, self.packing), start, stop, np.dtype(np.uint8), out)

    def fetch(self, start: Index3D, stop: Index3D) -> None:
        """Read from the disk what `read` needs, without unpacking: for timing."""
        CONTAINERS[self.packing].fetch(image_path(self.folder, self.scan_id, self.packing), self.scan_id, start, stop)

    def normalised(self) -> "Tensor":
        """The whole scan, (D, H, W) float32 on the CPU, normalised as for the network."""
        import torch

        voxels = self.read((0, 0, 0), self.shape).astype(np.float32)
        return torch.from_numpy(self.normalisation.apply(voxels * np.float32(self.scale) + np.float32(self.offset)))

    def _box(
        self, path: Path, start: Index3D, stop: Index3D, dtype: "np.dtype[Any]", out: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        voxels = CONTAINERS[self.packing].read_box(path, self.scan_id, start, stop, out=out)
        if voxels.shape != tuple(b - a for a, b in zip(start, stop, strict=True)) or voxels.dtype != dtype:
            raise damaged(self.scan_id, path, f"it holds {voxels.dtype} voxels of another shape than recorded")
        return voxels


def image_path(folder: Path, scan_id: str, packing: Packing) -> Path:
    """File of a scan's voxels."""
    return folder / f"{scan_id}{CONTAINERS[packing].SUFFIX}"


def label_path(folder: Path, scan_id: str, packing: Packing) -> Path:
    """File of a scan's label, if it has one."""
    return folder / f"{scan_id}.label{CONTAINERS[packing].SUFFIX}"


def packing_of(folder: Path, scan_id: str) -> Packing | None:
    """How a scan is packed; None if it is not in the store."""
    return next((packing for packing in CONTAINERS if image_path(folder, scan_id, packing).exists()), None)


def stored_scan_ids(folder: Path) -> Iterator[str]:
    """Ids of all scans that have a file in the store."""
    for container in CONTAINERS.values():
        for path in folder.glob(f"*{container.SUFFIX}"):
            yield path.name.split(".")[0]


def remove_volume(folder: Path, scan_id: str) -> None:
    """Remove a scan and its label from the store, if they are there."""
    for packing in CONTAINERS:
        image_path(folder, scan_id, packing).unlink(missing_ok=True)
        label_path(folder, scan_id, packing).unlink(missing_ok=True)


def write_volume(
    folder: Path, scan_id: str, volume: Volume, *, modality: str, label: Volume | None, policy: StorePolicy
) -> StoredVolume:
    """Resample a scan to the store's grid and write it. The image file appears last, so a scan is complete or absent.

    Raises:
        DataError: NaN or infinite voxels, an empty volume, a label on another grid, label values other than whole
            numbers in 0..255, or a failed write.
    """
    _check_voxels(scan_id, volume)
    stored = to_store_grid(volume, policy=policy, modality=modality)
    voxels = to_tensor_axes(stored.voxels)
    arrays: dict[str, npt.NDArray[Any]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    if label is not None:
        label = _checked_label(scan_id, volume, label)
        classes = _write_label(folder, scan_id, label, policy=policy, modality=modality)
        arrays = {f"class/{value}": sample for value, sample in classes.items()}
    normalisation = normalisation_of(stored, modality)
    scale, offset = quantisation(voxels, modality, (normalisation.low, normalisation.high))
    body_box, mask = find_body(voxels, modality)
    metadata = _origin(scan_id) | {
        "modality": modality, "shape": list(voxels.shape),
        "affine_ras_mm": stored.affine_ras_mm.tolist(), "scale": scale, "offset": offset,
        "normalisation": [normalisation.low, normalisation.high, normalisation.mean, normalisation.std],
        "body_box": body_box, "body_mask": mask.as_dict(), "has_label": label is not None,
    }  # fmt: skip
    path, levels = image_path(folder, scan_id, policy.packing), quantised(voxels, scale=scale, offset=offset)
    try:
        CONTAINERS[policy.packing].write(path, levels, Contents(metadata, arrays))
    except DataError:
        if not path.exists():
            label_path(folder, scan_id, policy.packing).unlink(missing_ok=True)
        raise
    return open_volume(folder, scan_id)


def open_volume(folder: Path, scan_id: str) -> StoredVolume:
    """A scan of the store. Raises DataError if it is missing, damaged, or in another format of the store."""
    packing = packing_of(folder, scan_id)
    if packing is None:
        raise missing(scan_id, image_path(folder, scan_id, "lz4"))
    path = image_path(folder, scan_id, packing)
    contents = CONTAINERS[packing].read_contents(path, scan_id)
    metadata = contents.metadata
    found, writer, remedy = metadata.get("format"), metadata.get("medssl"), "ingest the cohort into a new folder"
    check_format(f"scan {scan_id} ({path})", found, FORMAT, writer=writer, remedy=remedy)
    try:
        d, h, w = metadata["shape"]
        (start, stop) = (tuple(corner) for corner in metadata["body_box"])
        return StoredVolume(
            scan_id=scan_id,
            folder=Path(folder),
            shape=(d, h, w),
            affine_ras_mm=np.array(metadata["affine_ras_mm"], np.float64),
            modality=metadata["modality"],
            scale=float(metadata["scale"]),
            offset=float(metadata["offset"]),
            normalisation=Normalisation(*metadata["normalisation"]),
            body_box=(start, stop),
            has_label=metadata["has_label"],
            class_voxels={int(name.removeprefix("class/")): voxels for name, voxels in contents.arrays.items()},
            body_mask=BodyMask.from_dict(metadata["body_mask"]),
            packing=packing,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(scan_id, path, error) from error


def _origin(scan_id: str) -> dict[str, Any]:
    """What every file of a scan records first: the format, the medssl that wrote it, and the scan."""
    return {"format": FORMAT, "medssl": _version(), "scan_id": scan_id}


def _version() -> str:
    from importlib.metadata import version  # only writers need it; workers that read start faster without

    return version("medssl")


def verify_volume(folder: Path, scan_id: str) -> None:
    """Read all of a scan and its label and compare the checksums. Raises DataError that names the scan."""
    stored = open_volume(folder, scan_id)
    container = CONTAINERS[stored.packing]
    container.verify(image_path(folder, scan_id, stored.packing), scan_id)
    if stored.has_label:
        container.verify(label_path(folder, scan_id, stored.packing), scan_id)


def _check_voxels(scan_id: str, volume: Volume) -> None:
    if 0 in volume.voxels.shape or volume.voxels.ndim != 3:
        raise DataError(f"scan {scan_id} has the shape {volume.voxels.shape}. Only 3D scans with voxels can be stored.")
    is_integer = np.issubdtype(volume.voxels.dtype, np.integer)
    broken = 0 if is_integer else int(np.count_nonzero(~np.isfinite(volume.voxels)))
    if broken:
        raise DataError(
            f"scan {scan_id} has {broken} voxels of {volume.voxels.size} that are NaN or infinite. Repair or exclude "
            "it."
        )


def _checked_label(scan_id: str, volume: Volume, label: Volume) -> Volume:
    if not same_grid(volume, label):
        raise DataError(
            f"the label of scan {scan_id} lies on another grid: {label.shape} (X, Y, Z) at "
            f"{np.round(label.spacing_mm, 3).tolist()} mm, the scan {volume.shape} at "
            f"{np.round(volume.spacing_mm, 3).tolist()} mm. Resample the label to its scan."
        )
    low, high = float(label.voxels.min()), float(label.voxels.max())
    if not (low >= 0 and high <= 255 and bool(np.all(label.voxels == np.rint(label.voxels)))):
        raise DataError(
            f"the label of scan {scan_id} has values from {low} to {high}. Labels must be whole numbers from 0 to 255."
        )
    return Volume(label.voxels.astype(np.uint8), label.affine_ras_mm)


def _write_label(
    folder: Path, scan_id: str, label: Volume, *, policy: StorePolicy, modality: str
) -> dict[int, npt.NDArray[np.int32]]:
    """Write the label, and return a sample of each class's voxels: the same for the same scan."""
    voxels = to_tensor_axes(to_store_grid(label, policy=policy, modality=modality, nearest=True).voxels)
    path = label_path(folder, scan_id, policy.packing)
    CONTAINERS[policy.packing].write(path, voxels, Contents(_origin(scan_id)))
    generator = np.random.default_rng(0)
    sampled = {}
    for value in np.unique(voxels[voxels != 0]):
        index = np.flatnonzero(voxels == value)
        index = np.sort(generator.choice(index, min(len(index), VOXELS_PER_CLASS), replace=False))
        sampled[int(value)] = np.stack(np.unravel_index(index, voxels.shape), axis=1).astype(np.int32)
    return sampled
