"""The labelled scans that a fine-tuning trains on, and those it is scored on."""

from medssl.cohort.cohort import Cohort
from medssl.cohort.manifest import ManifestRow
from medssl.errors import ConfigError, DataError
from medssl.store.volumes import StoredVolume, open_volume


def training_scans(cohort: Cohort, *, num_labelled: int | str, seed: int) -> list[StoredVolume]:
    """Labelled scans of the training split, drawn by the seed; larger draws contain smaller ones of one seed.

    Raises DataError without labelled scans, ConfigError when there are fewer than asked for.
    """
    rows = check_count(cohort, num_labelled=num_labelled)
    chosen = rows if num_labelled == "all" else cohort.sample_labelled(int(num_labelled), seed=seed)
    return [open_volume(cohort.store, row.scan_id) for row in chosen]


def check_count(cohort: Cohort, *, num_labelled: int | str) -> tuple[ManifestRow, ...]:
    """All labelled training scans. Raises DataError where there are none, ConfigError for fewer than asked for."""
    rows = cohort.accepted(split="train", labelled=True)
    if not rows:
        raise DataError("The cohort has no labelled scan in the split 'train'. Ingest with --label-dir DIR.")
    if num_labelled != "all" and int(num_labelled) > len(rows):
        raise ConfigError(
            f"{num_labelled} labelled scans were asked for, but the split 'train' has {len(rows)}. "
            "Lower --num-labelled."
        )
    return rows


def check_comparable(cohort: Cohort, *, num_labelled: int) -> None:
    """Raise now what a comparison would only raise after its last training.

    That is ConfigError for fewer than `num_labelled` labelled training scans, and DataError for a test split in which
    no scan has a labelled voxel.
    """
    classes = class_labels(cohort)
    check_count(cohort, num_labelled=num_labelled)
    rows = cohort.accepted(split="test", labelled=True)
    if not any(label in row.labels for row in rows for label in classes):
        missing = "no scan with a labelled voxel" if rows else "no labelled scan"
        raise DataError(
            f"The split 'test' has {missing}, so nothing can be compared. Ingest more labelled scans, or move some to "
            "that split with --splits."
        )


def gaps_in_test(cohort: Cohort) -> list[str]:
    """Sentences about classes that the test split cannot score, for the user to read before the training."""
    rows = cohort.accepted(split="test", labelled=True)
    if not rows:
        return [
            "The split 'test' has no labelled scan: the model will not be scored. To have it scored, stop and ingest "
            "labelled scans for that split (--splits)."
        ]
    absent = [name for label, name in class_names(cohort).items() if not any(label in row.labels for row in rows)]
    return [f"class '{name}' is in no test scan: it will have no Dice" for name in absent]


def labelled_scans(cohort: Cohort, *, split: str) -> list[StoredVolume]:
    """All labelled scans of a split; empty when there are none."""
    return [open_volume(cohort.store, row.scan_id) for row in cohort.accepted(split=split, labelled=True)]


def class_names(cohort: Cohort) -> dict[int, str]:
    """Foreground class value to its name, or to the value as text where the cohort does not name it."""
    return {label: cohort.label_names.get(label, str(label)) for label in class_labels(cohort)}


def class_labels(cohort: Cohort) -> list[int]:
    """Foreground class values, 1..n: those that the cohort names and those that occur in its labels.

    Raises DataError when values are missing in between, because the network's outputs are 0..n.
    """
    named = [label for label in cohort.label_names if label != 0]
    occurring = {label for row in cohort.accepted(labelled=True) for label in row.labels if label != 0}
    labels = sorted(set(named) | occurring)
    if not labels:
        raise DataError("The cohort has no labelled voxels. Ingest with --label-dir DIR.")
    if labels != list(range(1, len(labels) + 1)):
        raise DataError(
            f"Label values are {labels}; they must run from 1 without gaps. Renumber the label files and ingest again."
        )
    return labels
