"""Reads the dataset.json of Medical Segmentation Decathlon and nnU-Net datasets."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.archive.rejection import Rejected
from medssl.archive.sources.open import read_small
from medssl.cohort.reasons import Reason
from medssl.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """A folder with a dataset.json, in the layout of the Decathlon or of nnU-Net's raw data.

    Attributes:
        folder: The folder.
        channels: Channel number to name.
        label_names: Label value to name.
        numbered_channels: Whether image names end in a channel number (case_0000.nii.gz), as in nnU-Net.
    """

    folder: Path
    channels: dict[int, str]
    label_names: dict[int, str]
    numbered_channels: bool


def read_dataset(path: Path) -> Dataset | None:
    """The dataset that a dataset.json describes; None if the file is gone or describes something else.

    Raises Rejected with IO_ERROR or DATASET_JSON if the file is damaged.
    """
    try:
        description = json.loads(read_small(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"the file cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise Rejected(Reason.DATASET_JSON, "the file is not valid JSON") from error
    if not isinstance(description, dict) or not isinstance(description.get("labels"), dict):
        return None
    channels = description.get("channel_names", description.get("modality", {}))
    channels = channels if isinstance(channels, dict) else {}
    try:
        channel_names = {int(number): str(name) for number, name in channels.items()}
        labels = _label_names(description["labels"])
    except (ValueError, TypeError) as error:
        raise Rejected(
            Reason.DATASET_JSON, "labels or channels are neither in the Decathlon's layout nor in nnU-Net's"
        ) from error
    return Dataset(path.parent, channel_names, labels, "channel_names" in description or "file_ending" in description)


def merged_label_names(datasets: Iterable[Dataset]) -> dict[int, str]:
    """Label names of all datasets together. Raises DataError if a value has two names."""
    names: dict[int, str] = {}
    for dataset in datasets:
        for value, name in dataset.label_names.items():
            if names.setdefault(value, name) != name:
                raise DataError(
                    f"label {value} is {names[value]!r} in one dataset.json and {name!r} in another. "
                    "Ingest them into separate cohorts."
                )
    return names


def dataset_of(path: Path, datasets: Mapping[Path, Dataset]) -> Dataset | None:
    """The dataset of a file: in the file's folder or the one above."""
    return datasets.get(path.parent.parent) or datasets.get(path.parent)


def _label_names(labels: Mapping[str, Any]) -> dict[int, str]:
    """Value to name. The Decathlon writes {"1": "liver"}, nnU-Net {"liver": 1}; its regions (lists) are skipped."""
    if all(key.isdigit() for key in labels):
        return {int(value): str(name) for value, name in labels.items()}
    return {int(value): str(name) for name, value in labels.items() if not isinstance(value, list)}
