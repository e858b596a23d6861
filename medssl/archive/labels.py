"""Which NIfTI file is a label, and of which image: by folder, by file name, by dataset.json."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.archive.places import read_small
from medssl.archive.reasons import Reason
from medssl.archive.rejection import Rejected
from medssl.errors import DataError

ENDINGS = (".nii.gz", ".nii", ".hdr", ".hdr.gz")
_LABEL_FOLDERS = {"labels": "images", "labelsTr": "imagesTr", "labelsTs": "imagesTs", "labelsVal": "imagesVal"}
_LABEL_SUFFIXES = ("_seg", "-seg", "_label", "-label", "_labels", "_segmentation", "_dseg", ".seg")


@dataclass(frozen=True)
class Dataset:
    """A folder with a dataset.json, in Medical Segmentation Decathlon or nnU-Net raw layout."""

    folder: Path
    channels: dict[int, str]
    label_names: dict[int, str]
    numbered_channels: bool  # nnU-Net: case_0000.nii.gz


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


def read_dataset(path: Path) -> Dataset | None:
    """What a dataset.json says; None when it is something else by that name, or gone. Raises Rejected when it is
    damaged.
    """
    try:
        facts = json.loads(read_small(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise Rejected(Reason.DATASET_JSON, "it is no valid JSON") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("labels"), dict):
        return None
    channels = facts.get("channel_names", facts.get("modality", {}))
    channels = channels if isinstance(channels, dict) else {}
    try:
        named = {int(number): str(name) for number, name in channels.items()}
        labels = _label_names(facts["labels"])
    except (ValueError, TypeError) as error:
        raise Rejected(Reason.DATASET_JSON, "it names its labels or channels in no layout that is known") from error
    return Dataset(path.parent, named, labels, "channel_names" in facts or "file_ending" in facts)


def merged_label_names(datasets: Iterable[Dataset]) -> dict[int, str]:
    """Label names of all datasets together. Raises DataError when one value has two names."""
    names: dict[int, str] = {}
    for dataset in datasets:
        for value, name in dataset.label_names.items():
            if names.setdefault(value, name) != name:
                raise DataError(
                    f"label {value} is {names[value]!r} in one dataset.json and {name!r} in another. "
                    "Ingest the two into cohorts of their own."
                )
    return names


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


def dataset_of(path: Path, datasets: Mapping[Path, Dataset]) -> Dataset | None:
    """The dataset in whose folder, or one folder below it, a file lies."""
    return datasets.get(path.parent.parent) or datasets.get(path.parent)


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


def _label_names(labels: Mapping[str, Any]) -> dict[int, str]:
    """Value to name; the Decathlon writes {"1": "liver"}, nnU-Net {"liver": 1}. Regions (lists) are no single class."""
    if all(key.isdigit() for key in labels):
        return {int(value): str(name) for value, name in labels.items()}
    return {int(value): str(name) for name, value in labels.items() if not isinstance(value, list)}
