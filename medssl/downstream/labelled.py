"""Which labelled scans a fine-tuning may see, and which it is judged on."""

from medssl.cohort.cohort import Cohort
from medssl.cohort.manifest import ManifestRow
from medssl.errors import ConfigError, DataError
from medssl.store.volumes import StoredVolume, open_volume


def training_scans(cohort: Cohort, *, labels: int | str, seed: int) -> list[StoredVolume]:
    """`labels` labelled scans of the training split, drawn by the seed; more labels with one seed contain fewer.

    Raises DataError without labelled scans, ConfigError when there are fewer than asked for.
    """
    rows = check_count(cohort, labels=labels)
    chosen = rows if labels == "all" else cohort.drawn_labelled(int(labels), seed=seed)
    return [open_volume(cohort.store, row.scan_id) for row in chosen]


def check_count(cohort: Cohort, *, labels: int | str) -> tuple[ManifestRow, ...]:
    """All labelled training scans. Raises DataError where there are none, ConfigError for fewer than asked for."""
    rows = cohort.accepted(split="train", labelled=True)
    if not rows:
        raise DataError("The cohort has no labelled scan in the split 'train'. Ingest with --labels DIR.")
    if labels != "all" and int(labels) > len(rows):
        raise ConfigError(
            f"{labels} labelled scans were asked for, but the split 'train' has {len(rows)}. Lower --labels."
        )
    return rows


def check_comparable(cohort: Cohort, *, labels: int) -> None:
    """Raise what fine-tunings with up to `labels` labelled scans would come to in the end: too few of them, or no test
    scan to judge them by.
    """
    classes = class_labels(cohort)
    check_count(cohort, labels=labels)
    rows = cohort.accepted(split="test", labelled=True)
    if not any(label in row.labels for row in rows for label in classes):
        lack = "no scan with a labelled voxel" if rows else "no labelled scan"
        raise DataError(
            f"The split 'test' has {lack}, so nothing can be compared. Ingest more labelled scans, or give --splits."
        )


def gaps_in_test(cohort: Cohort) -> list[str]:
    """What the test split will not be able to judge, as sentences to be said before a training."""
    rows = cohort.accepted(split="test", labelled=True)
    if not rows:
        return [
            "The split 'test' has no labelled scan: the model will not be scored. To have it scored, stop, and ingest "
            "labelled scans for it, or give --splits."
        ]
    absent = [label for label in class_labels(cohort) if not any(label in row.labels for row in rows)]
    return [
        f"class '{cohort.label_names.get(label, label)}' is in no test scan: it will have no Dice" for label in absent
    ]


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
