"""Which NIfTI file is a label, and of which image: by folder, by file name, by dataset.json."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medssl.archive.nifti.dataset_json import Dataset, dataset_of

ENDINGS = (".nii.gz", ".nii", ".hdr", ".hdr.gz")
_LABEL_FOLDERS = {"labels": "images", "labelsTr": "imagesTr", "labelsTs": "imagesTs", "labelsVal": "imagesVal"}
_LABEL_SUFFIXES = ("_seg", "-seg", "_label", "-label", "_labels", "_segmentation", "_dseg", ".seg")


@dataclass(frozen=True)
class Pairing:
    """Image and label files told apart and brought together.

    images: image file to its label file or None. lone_labels: labels without an image. channels_of: images left
    out because their case has further channels.
    """

    images: dict[Path, Path | None] = field(default_factory=dict)
    lone_labels: tuple[Path, ...] = ()
    many_channels: frozenset[Path] = frozenset()


def stem(path: Path) -> str:
    """File name without the endings of NIfTI."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem


def pair(files: Iterable[Path], *, label_roots: Iterable[Path], datasets: Mapping[Path, Dataset]) -> Pairing:
    """Tell images from labels among NIfTI files and match them by name.

    label_roots: folders that hold labels only. datasets: by folder. A label whose image is not there is reported, an
    image without a label is fine.
    """
    roots = tuple(label_roots)
    ordered = sorted(files)
    labels = [path for path in ordered if _in_label_folder(path, roots)]
    candidates = [path for path in ordered if path not in set(labels)]
    by_name = {(path.parent, _case(path, datasets)): path for path in candidates}
    suffixed = {path: image for path in candidates if (image := _suffix_image(path, by_name)) is not None}
    images = [path for path in candidates if path not in suffixed]
    many = _many_channels(images, datasets)
    matched, lone = _match(images, labels, datasets, roots)
    for label, image in suffixed.items():
        if matched.get(image) is None:
            matched[image] = label
        else:
            lone.append(label)
    return Pairing({image: matched.get(image) for image in images}, tuple(sorted(lone)), many)


def _match(
    images: list[Path], labels: list[Path], datasets: Mapping[Path, Dataset], roots: tuple[Path, ...]
) -> tuple[dict[Path, Path | None], list[Path]]:
    """Labels to images: first in the folder beside the labels, then, for a named label folder, anywhere."""
    beside = {(image.parent, _case(image, datasets)): image for image in images}
    anywhere: dict[str, list[Path]] = {}
    for image in images:
        anywhere.setdefault(_case(image, datasets), []).append(image)
    matched: dict[Path, Path | None] = {}
    lone = []
    for label in labels:
        found: list[Path | None] = []
        for name in dict.fromkeys((stem(label), _label_case(label))):
            found += [beside.get((folder, name)) for folder in _image_folders(label)]
            if _under(label, roots) and len(anywhere.get(name, [])) == 1:
                found += anywhere[name]
        target = next((image for image in found if image is not None and image not in matched), None)
        if target is None:
            lone.append(label)
        else:
            matched[target] = label
    return matched, lone


def _image_folders(label: Path) -> list[Path]:
    """Folders in which the image of a label may lie: `images` or `imagesTr` beside it, or the folder above."""
    folder = label.parent
    beside = _LABEL_FOLDERS.get(folder.name)
    return ([folder.with_name(beside)] if beside else []) + [folder.parent]


def _in_label_folder(path: Path, roots: tuple[Path, ...]) -> bool:
    return path.parent.name in _LABEL_FOLDERS or _under(path, roots)


def _under(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(root == path or root in path.parents for root in roots)


def _case(path: Path, datasets: Mapping[Path, Dataset]) -> str:
    """Name under which labels look for an image: without the channel number of nnU-Net."""
    name = stem(path)
    dataset = dataset_of(path, datasets)
    return name[:-5] if dataset and dataset.numbered_channels and _channel(name) is not None else name


def _label_case(label: Path) -> str:
    name = stem(label)
    return next((name.removesuffix(suffix) for suffix in _LABEL_SUFFIXES if name.endswith(suffix)), name)


def _suffix_image(path: Path, by_name: Mapping[tuple[Path, str], Path]) -> Path | None:
    """The image beside which this file lies as `x_seg.nii.gz` beside `x.nii.gz`."""
    case = _label_case(path)
    return by_name.get((path.parent, case)) if case != stem(path) else None


def _channel(name: str) -> int | None:
    number = name[-4:]
    return int(number) if len(name) > 5 and name[-5] == "_" and number.isascii() and number.isdigit() else None


def _many_channels(images: list[Path], datasets: Mapping[Path, Dataset]) -> frozenset[Path]:
    cases: dict[tuple[Path, str], list[Path]] = {}
    for image in images:
        dataset = dataset_of(image, datasets)
        if dataset and dataset.numbered_channels and _channel(stem(image)) is not None:
            cases.setdefault((image.parent, _case(image, datasets)), []).append(image)
    return frozenset(path for group in cases.values() if len(group) > 1 for path in group)
