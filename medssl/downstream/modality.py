"""As which modality a scan is prepared for a model: each has its own spacing and its own scale of intensities."""

from collections.abc import Sequence
from pathlib import Path

from medssl.archive.dicom.record import parse_record
from medssl.archive.dicom.uids import modality_of_sop_class
from medssl.archive.limits import Limits
from medssl.archive.scan.recognise import scan_file
from medssl.archive.sources.walk import walk
from medssl.errors import DataError, UsageError

UNKNOWN = "unknown"


def stated_modality(item: Path) -> str | None:
    """CT, MR or PT, as the DICOM headers of a file, or of the files directly in a folder, say; None where none does.

    Raises DataError where they contradict each other.
    """
    folder = next(walk(item))
    files = [scan_file(folder.path / name, item, stamp, limits=Limits()) for name, stamp in folder.files.items()]
    records = [parse_record(file.record or "") for file in files if file.kind == "dicom"]
    found = sorted({modality_of_sop_class(record.sop_class) for record in records if record.reason is None})
    if len(found) > 1:
        raise DataError(f"{item} holds images of {_listed(found)}. Put each series into a folder of its own.")
    return found[0] if found else None


def named_modality(name: str, trained_on: Sequence[str]) -> str:
    """The model's modality that somebody named, in capitals or not. Raises UsageError where it has not seen it."""
    same = {modality.upper(): modality for modality in trained_on if modality != UNKNOWN}
    if name.upper() in same:
        return same[name.upper()]
    if not same:
        raise UsageError("the training scans of this model did not say their modality. Leave out --modality.")
    raise UsageError(f"--modality is '{name}', and the model was trained on {_listed(list(same))}. Choose from these.")


def modality_to_use(stated: str | None, *, trained_on: Sequence[str], named: str | None) -> str:
    """The scan's own modality where the model has seen it, else the one that the user named.

    Without either, a scan that says nothing takes the model's only one, and any scan the 'unknown' of a model whose
    training scans did not say theirs. Raises DataError for a scan that the model would not understand.
    """
    if stated is not None and stated in trained_on:
        return stated
    if named is not None:
        return named
    if UNKNOWN in trained_on:
        return UNKNOWN
    if stated is not None:
        raise DataError(
            f"It is a scan of the modality {stated}, and the model was trained on {_listed(trained_on)}. Take a model "
            f"for {stated}, or name with --modality what it is to be taken for."
        )
    if len(trained_on) > 1:
        raise DataError(
            f"It does not say its modality, and the model was trained on {_listed(trained_on)}. Name its modality with "
            "--modality."
        )
    return trained_on[0]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
