"""Segment scans outside of any cohort; the labels are written on each scan's own grid."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medssl.archive.nifti.write import write_nifti
from medssl.downstream.inputs import InputScan, check_outputs, find_inputs
from medssl.downstream.modality import UNKNOWN, chosen_modality, declared_modality, modality_to_use
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
    """The outcome for one input.

    Attributes:
        source: The scan: a file, or the folder of a DICOM series.
        output: The label file; None where `reason` says why there is none.
        reason: Why the scan was left out.
    """

    source: Path
    output: Path | None
    reason: str | None = None


def predict(
    model: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    modality: str | None = None,
    overwrite: bool = False,
    progress: Callable[[Prediction], None] = lambda prediction: None,
    note: Callable[[str], None] = lambda sentence: None,
) -> list[Prediction]:
    """Segment one scan, or every scan in a folder, into NIfTI label files in `out`, which mirrors the folder.

    A file that cannot be read is left out with its reason, and so is one of a modality that the model was not trained
    on; the others are segmented.

    Args:
        model: Run folder of a fine-tuning.
        source: A NIfTI file, a single DICOM file, a folder with the files of one series, or a folder of any of these.
        out: Folder for the label files.
        modality: Of scans that do not declare one, or declare one that the model was not trained on.
        overwrite: Replace label files that exist.
        progress: Called with each outcome.
        note: Called with a sentence on files that are not scans.

    Raises:
        UsageError: `source` holds no scan, the model was not trained on `modality`, or a label file exists (unless
            `overwrite`) or would be written twice.
        CheckpointError: The model cannot be loaded.
        DataError: None of the scans could be segmented.
    """
    out = Path(out)
    network, metadata = load_network(Path(model))
    chosen = None if modality is None else chosen_modality(modality, metadata.modalities)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]  # no 3d in its types
    inputs = find_inputs(Path(source), out)
    check_outputs(inputs.scans, overwrite=overwrite)
    if inputs.skipped:
        more = ", ..." if len(inputs.skipped) > 1 else ""
        note(f"skipped files that are not scans: {len(inputs.skipped)} ({inputs.skipped[0]}{more})")
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for scan in inputs.scans:
        try:
            result = Prediction(scan.path, predict_scan(network, metadata, scan, modality=chosen, device=device))
        except MedsslError as error:
            result = Prediction(scan.path, None, str(error))
        progress(result)
        results.append(result)
    if not any(result.output for result in results):
        raise DataError(f"None of the {len(results)} inputs could be segmented. The first: {results[0].reason}")
    return results


def predict_scan(
    network: SegmentationNetwork,
    metadata: NetworkMetadata,
    scan: InputScan,
    *,
    modality: str | None,
    device: torch.device,
) -> Path:
    """Segment one scan and write its labels on the scan's own grid.

    modality: of a scan that declares none, or none that the model was trained on.
    """
    if scan.problem:
        raise DataError(scan.problem)
    native = load_scan(scan.path)
    used = modality_to_use(declared_modality(scan.path), trained_on=metadata.modalities or (UNKNOWN,), chosen=modality)
    policy = StorePolicy.model_validate(metadata.store_policy or {})
    stored = to_store_grid(native, policy=policy, modality=used)
    normalisation = normalisation_of(stored, used)
    image = normalisation.apply(to_tensor_axes(stored.voxels))
    labels = predict_labels(
        network,
        torch.from_numpy(image).to(device),
        patch=metadata.patch,
        overlap=metadata.overlap,
        pad_value=normalisation.pad_value,
    )
    on_native = to_native_grid(labels.cpu().numpy(), stored.affine_ras_mm, native, nearest=True)
    scan.output.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(scan.output, Volume(on_native.astype(np.uint8), native.affine_ras_mm))
    return scan.output
