"""Segment scans that are not in any cohort; the labels come back on the scan's own grid."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medssl.archive.nifti.write import write_nifti
from medssl.downstream.inputs import Input, check_outputs, find_inputs
from medssl.downstream.modality import UNKNOWN, modality_to_use, named_modality, stated_modality
from medssl.downstream.segmentation import predict_labels
from medssl.encoders.records import NetworkMetadata
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.weights import load_network
from medssl.errors import DataError, MedsslError
from medssl.geometry import Volume, to_tensor_axes
from medssl.ingestion.one_scan import load_scan
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
    overwrite: bool = False,
    progress: Callable[[Prediction], None],
    note: Callable[[str], None] = lambda sentence: None,
) -> list[Prediction]:
    """Segment one scan, or every scan in a folder, into NIfTI label files in `out`, which mirrors the folder.

    A scan is a NIfTI file, a single DICOM file or a folder with the files of one series. A file that cannot be read
    costs that file, with its reason; so does one of a modality that the model has not seen. modality: of scans that do
    not say it, or say one that the model has not seen.
    note: hears of files that are no scans. Raises UsageError when `source` holds no scan, the model has not seen
    `modality`, or a label file exists (unless `overwrite`) or would be written twice; CheckpointError when the model
    cannot be used, DataError when nothing at all could be segmented.
    """
    network, facts = load_network(model)
    named = None if modality is None else named_modality(modality, facts.modalities)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
    found = find_inputs(source, out)
    check_outputs(found.inputs, overwrite=overwrite)
    if found.passed_over:
        more = ", ..." if len(found.passed_over) > 1 else ""
        note(f"passed over, being no scans: {len(found.passed_over)} ({found.passed_over[0]}{more})")
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for item in found.inputs:
        try:
            result = Prediction(item.path, predict_one(network, facts, item, named=named, device=device))
        except MedsslError as error:
            result = Prediction(item.path, None, str(error))
        progress(result)
        results.append(result)
    if not any(result.output for result in results):
        raise DataError(f"None of the {len(results)} inputs could be segmented. The first: {results[0].reason}")
    return results


def predict_one(
    network: SegmentationNetwork,
    facts: NetworkMetadata,
    item: Input,
    *,
    named: str | None,
    device: torch.device,
) -> Path:
    """Segment one scan and write its labels on the scan's own grid.

    named: modality of a scan that says none, or none that the model has seen.
    """
    if item.problem:
        raise DataError(item.problem)
    native = load_scan(item.path)
    modality = modality_to_use(stated_modality(item.path), trained_on=facts.modalities or (UNKNOWN,), named=named)
    policy = StorePolicy.model_validate(facts.store_policy or {})
    stored = to_store_grid(native, policy=policy, modality=modality)
    normalisation = normalisation_of(stored, modality)
    image = normalisation.apply(to_tensor_axes(stored.voxels))
    labels = predict_labels(
        network,
        torch.from_numpy(image).to(device),
        patch=facts.patch,
        overlap=facts.overlap,
        pad_value=normalisation.pad_value,
    )
    on_native = to_native_grid(labels.cpu().numpy(), stored.affine_ras_mm, native, nearest=True)
    item.output.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(item.output, Volume(on_native.astype(np.uint8), native.affine_ras_mm))
    return item.output
