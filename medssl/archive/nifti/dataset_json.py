"""Which NIfTI file is a label, and of which image: by folder, by file name, by dataset.json."""

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
    """A folder with a dataset.json, in Medical Segmentation Decathlon or nnU-Net raw layout."""

    folder: Path
    channels: dict[int, str]
    label_names: dict[int, str]
    numbered_channels: bool  # nnU-Net: case_0000.nii.gz


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
                    "Ingest them into separate cohorts."
                )
    return names


def dataset_of(path: Path, datasets: Mapping[Path, Dataset]) -> Dataset | None:
    """The dataset in whose folder, or one folder below it, a file lies."""
    return datasets.get(path.parent.parent) or datasets.get(path.parent)


def _label_names(labels: Mapping[str, Any]) -> dict[int, str]:
    """Value to name; the Decathlon writes {"1": "liver"}, nnU-Net {"liver": 1}. Regions (lists) are no single class."""
    if all(key.isdigit() for key in labels):
        return {int(value): str(name) for value, name in labels.items()}
    return {int(value): str(name) for name, value in labels.items() if not isinstance(value, list)}
