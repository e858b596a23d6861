"""Which labelled scans a fine-tuning may see, and which it is judged on."""

from medssl.archive.cohort import Cohort
from medssl.errors import ConfigError, DataError
from medssl.store.volumes import StoredVolume, open_volume


def training_scans(cohort: Cohort, *, labels: int | str, seed: int) -> list[StoredVolume]:
    """`labels` labelled scans of the training split, drawn by the seed; more labels with one seed contain fewer.

    Raises DataError without labelled scans, ConfigError when there are fewer than asked for.
    """
    rows = cohort.accepted(split="train", labelled=True)
    if not rows:
        raise DataError("The cohort has no labelled scan in the split 'train'. Ingest with --labels DIR.")
    if labels != "all" and int(labels) > len(rows):
        raise ConfigError(
            f"{labels} labelled scans were asked for, but the split 'train' has {len(rows)}. Lower --labels."
        )
    chosen = rows if labels == "all" else cohort.drawn_labelled(int(labels), seed=seed)
    return [open_volume(cohort.store, row.scan_id) for row in chosen]


def test_scans(cohort: Cohort) -> list[StoredVolume]:
    """Labelled scans of the test split; empty when there are none."""
    return [open_volume(cohort.store, row.scan_id) for row in cohort.accepted(split="test", labelled=True)]


def class_labels(cohort: Cohort) -> list[int]:
    """Foreground class values: those named by the cohort, else all that occur in its labels; 1..n without gaps.

    Raises DataError when there are gaps, since the network's outputs are 0..n.
    """
    named = [label for label in cohort.label_names if label != 0]
    found = {label for row in cohort.accepted(labelled=True) for label in row.labels if label != 0}
    labels = sorted(set(named) | found)
    if not labels:
        raise DataError("The cohort has no labelled voxels. Ingest with --labels DIR.")
    if labels != list(range(1, len(labels) + 1)):
        raise DataError(
            f"Label values are {labels}; they must run from 1 without gaps. Renumber the label files and ingest again."
        )
    return labels
