"""The modality that a scan is prepared as: each has its own spacing and its own scale of intensities."""

from collections.abc import Sequence
from pathlib import Path

from medssl.archive.dicom.record import parse_record
from medssl.archive.dicom.uids import modality_of_sop_class
from medssl.archive.limits import Limits
from medssl.archive.scan.recognise import scan_file
from medssl.archive.sources.walk import walk
from medssl.errors import DataError, UsageError

UNKNOWN = "unknown"


def declared_modality(path: Path) -> str | None:
    """CT, MR or PT by the DICOM headers of a file, or of the files directly in a folder; None where none declares one.

    Raises DataError where they contradict each other.
    """
    folder = next(walk(path))
    files = [scan_file(folder.path / name, path, stamp, limits=Limits()) for name, stamp in folder.files.items()]
    records = [parse_record(file.record or "") for file in files if file.kind == "dicom"]
    modalities = sorted({modality_of_sop_class(record.sop_class) for record in records if record.reason is None})
    if len(modalities) > 1:
        raise DataError(f"{path} holds images of {_listed(modalities)}. Put each series into a folder of its own.")
    return modalities[0] if modalities else None


def chosen_modality(name: str, trained_on: Sequence[str]) -> str:
    """The model's modality of that name, in upper or lower case. Raises UsageError where it was not trained on it."""
    by_name = {modality.upper(): modality for modality in trained_on if modality != UNKNOWN}
    if name.upper() in by_name:
        return by_name[name.upper()]
    if not by_name:
        raise UsageError("The training scans of this model did not declare a modality. Leave out --modality.")
    raise UsageError(
        f"--modality is '{name}', and the model was trained on {_listed(list(by_name))}. Choose from these."
    )


def modality_to_use(declared: str | None, *, trained_on: Sequence[str], chosen: str | None) -> str:
    """The declared modality where the model was trained on it, else the one that the user chose.

    Without either, a scan that declares none takes the model's only one, and any scan the 'unknown' of a model whose
    training scans declared none. Raises DataError for a scan that the model cannot interpret.
    """
    # The header wins over --modality: one option covers a whole folder, in which it is right for the NIfTI files and
    # wrong for a DICOM series of another modality.
    if declared is not None and declared in trained_on:
        return declared
    if chosen is not None:
        return chosen
    if UNKNOWN in trained_on:
        return UNKNOWN
    if declared is not None:
        raise DataError(
            f"It is a scan of the modality {declared}, and the model was trained on {_listed(trained_on)}. Take a "
            f"model for {declared}, or say with --modality as which modality to treat it."
        )
    if len(trained_on) > 1:
        raise DataError(
            f"It does not declare its modality, and the model was trained on {_listed(trained_on)}. Name its modality "
            "with --modality."
        )
    return trained_on[0]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
