"""Segment scans that are not in any cohort; the labels come back on the scan's own grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medssl.archive.load import load_scan
from medssl.archive.nifti_write import write_nifti
from medssl.downstream.modality import UNKNOWN, modality_to_use, named_modality, stated_modality
from medssl.downstream.segmentation import predict_labels
from medssl.encoders.network import SegmentationNetwork
from medssl.encoders.records import NetworkFacts
from medssl.encoders.weights import load_network
from medssl.errors import DataError, MedsslError, UsageError
from medssl.geometry import Volume, to_tensor_axes
from medssl.store.normalisation import normalisation_of
from medssl.store.policy import StorePolicy, to_native_grid, to_store_grid


@dataclass(frozen=True)
class Prediction:
    """What became of one input. output: None where `reason` says why there is none."""

    source: Path
    output: Path | None
    reason: str | None = None


def predict(
    model: Path,
    source: Path,
    out: Path,
    *,
    modality: str | None = None,
    progress: Callable[[Prediction], None],
) -> list[Prediction]:
    """Segment one scan, or every scan in a folder, into NIfTI label files in `out`.

    A scan is a NIfTI file, a single DICOM file or a folder with the files of one series. A file that cannot be read
    costs that file, with its reason; so does one of a modality that the model has not seen. modality: of scans that do
    not say it, or say one that the model has not seen.
    Raises UsageError when `source` holds nothing or the model has not seen `modality`, CheckpointError when the model
    cannot be used, DataError when nothing at all could be segmented.
    """
    network, facts = load_network(model)
    named = None if modality is None else named_modality(modality, facts.modalities)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
    inputs = find_inputs(source)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for item, name in zip(inputs, output_names(inputs), strict=True):
        try:
            result = Prediction(item, predict_one(network, facts, item, out / name, named=named, device=device))
        except MedsslError as error:
            result = Prediction(item, None, str(error))
        progress(result)
        results.append(result)
    if not any(result.output for result in results):
        raise DataError(f"None of the {len(results)} inputs could be segmented. The first: {results[0].reason}")
    return results


def find_inputs(source: Path) -> list[Path]:
    """NIfTI files and folders of DICOM files below `source`, sorted.

    Raises UsageError when `source` does not exist or holds no file.
    """
    if not source.exists():
        raise UsageError(f"{source} does not exist. Give a NIfTI file, or a folder with scans.")
    if source.is_file():
        return [source]
    files = sorted(p for p in source.rglob("*") if p.is_file() and not p.name.startswith("."))
    if not files:
        raise UsageError(f"{source} holds no files. Give a NIfTI file, or a folder with scans.")
    nifti = [p for p in files if p.name.endswith((".nii", ".nii.gz"))]
    series = sorted(
        {p.parent for p in files if p not in set(nifti) and p.suffix.lower() not in {".json", ".txt", ".csv"}}
    )
    return nifti + series


def output_names(inputs: Sequence[Path]) -> list[str]:
    """One file name per input, the input's own name; numbered where two inputs share one."""
    stems = [item.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".dcm") for item in inputs]
    return [
        f"{stem}_labels.nii.gz" if stems.count(stem) == 1 else f"{stem}_{stems[:i].count(stem) + 1}_labels.nii.gz"
        for i, stem in enumerate(stems)
    ]


def predict_one(
    network: SegmentationNetwork,
    facts: NetworkFacts,
    item: Path,
    output: Path,
    *,
    named: str | None,
    device: torch.device,
) -> Path:
    """Segment one scan and write its labels on the scan's own grid.

    named: modality of a scan that says none, or none that the model has seen.
    """
    native = load_scan(item)
    modality = modality_to_use(stated_modality(item), trained_on=facts.modalities or (UNKNOWN,), named=named)
    policy = StorePolicy.model_validate(facts.store_policy or {})
    stored = to_store_grid(native, policy=policy, modality=modality)
    normalisation = normalisation_of(stored, modality)
    image = normalisation.apply(to_tensor_axes(stored.voxels))
    labels = predict_labels(
        network,
        torch.from_numpy(image).to(device),
        patch=facts.patch,
        overlap=facts.overlap,
        outside=normalisation.outside,
    )
    on_native = to_native_grid(labels.cpu().numpy(), stored.affine_ras_mm, native, nearest=True)
    write_nifti(output, Volume(on_native.astype(np.uint8), native.affine_ras_mm))
    return output
