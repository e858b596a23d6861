"""Pairs NIfTI images with their labels: by folder, by file name and by dataset.json."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medssl.archive.nifti.dataset_json import Dataset, dataset_of

ENDINGS = (".nii.gz", ".nii", ".hdr", ".hdr.gz")
_LABEL_FOLDERS = {"labels": "images", "labelsTr": "imagesTr", "labelsTs": "imagesTs", "labelsVal": "imagesVal"}
_LABEL_SUFFIXES = ("_seg", "-seg", "_label", "-label", "_labels", "_segmentation", "_dseg", ".seg")


@dataclass(frozen=True)
class Pairing:
    """Images and their labels.

    Attributes:
        images: Image file to its label file or None.
        lone_labels: Labels without an image.
        many_channels: Images that are left out because their case has several channels.
    """

    images: dict[Path, Path | None] = field(default_factory=dict)
    lone_labels: tuple[Path, ...] = ()
    many_channels: frozenset[Path] = frozenset()


def stem(path: Path) -> str:
    """File name without its NIfTI ending."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem


def pair(files: Iterable[Path], *, label_roots: Iterable[Path], datasets: Mapping[Path, Dataset]) -> Pairing:
    """Separate NIfTI files into images and labels, and match them by name.

    Args:
        files: All NIfTI files.
        label_roots: Folders that hold only labels.
        datasets: Folder to dataset.
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
    """(image to label, lone labels). Images beside a label come first; for a label root any folder counts."""
    beside = {(image.parent, _case(image, datasets)): image for image in images}
    anywhere: dict[str, list[Path]] = {}
    for image in images:
        anywhere.setdefault(_case(image, datasets), []).append(image)
    matched: dict[Path, Path | None] = {}
    lone = []
    for label in labels:
        candidates: list[Path | None] = []
        for name in dict.fromkeys((stem(label), _label_case(label))):
            candidates += [beside.get((folder, name)) for folder in _image_folders(label)]
            if _under(label, roots) and len(anywhere.get(name, [])) == 1:
                candidates += anywhere[name]
        target = next((image for image in candidates if image is not None and image not in matched), None)
        if target is None:
            lone.append(label)
        else:
            matched[target] = label
    return matched, lone


def _image_folders(label: Path) -> list[Path]:
    """Folders that may hold the image of a label: `images` or `imagesTr` beside it, or the folder above."""
    folder = label.parent
    beside = _LABEL_FOLDERS.get(folder.name)
    return ([folder.with_name(beside)] if beside else []) + [folder.parent]


def _in_label_folder(path: Path, roots: tuple[Path, ...]) -> bool:
    return path.parent.name in _LABEL_FOLDERS or _under(path, roots)


def _under(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(root == path or root in path.parents for root in roots)


def _case(path: Path, datasets: Mapping[Path, Dataset]) -> str:
    """Name by which a label refers to an image: without nnU-Net's channel number."""
    name = stem(path)
    dataset = dataset_of(path, datasets)
    return name[:-5] if dataset and dataset.numbered_channels and _channel(name) is not None else name


def _label_case(label: Path) -> str:
    name = stem(label)
    return next((name.removesuffix(suffix) for suffix in _LABEL_SUFFIXES if name.endswith(suffix)), name)


def _suffix_image(path: Path, by_name: Mapping[tuple[Path, str], Path]) -> Path | None:
    """The image `x.nii.gz` in the folder of `x_seg.nii.gz`, if there is one."""
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
