"""Score a fine-tuned segmentation model on labelled scans of a cohort."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from medssl.cohort.cohort import Cohort
from medssl.downstream.dice import Evaluation, case_score
from medssl.downstream.labelled import class_names, labelled_scans
from medssl.downstream.segmentation import predict_labels
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.weights import load_network
from medssl.errors import DataError
from medssl.runs.run import Run
from medssl.shapes import Shape3D
from medssl.store.policy import StorePolicy
from medssl.store.volumes import StoredVolume


def evaluate(model: str | Path, cohort: str | Path | None = None, *, split: str = "test") -> Evaluation:
    """Segment the labelled scans of a split and compare them with their labels; writes nothing.

    Args:
        model: Run folder of a fine-tuning.
        cohort: Folder of a cohort; None takes the one that the model was fine-tuned on.
        split: Split of the cohort whose labelled scans are scored.

    Raises:
        CheckpointError: The model cannot be loaded.
        DataError: The split has no labelled scan, the cohort lies on another grid than the model was trained on, or
            a class value has another name in the cohort than in the model.
    """
    network, metadata = load_network(Path(model))
    scored = Cohort.open(Path(cohort if cohort is not None else Run.open(Path(model)).config["cohort"]))
    scans = labelled_scans(scored, split=split)
    if not scans:
        raise DataError(f"The split '{split}' of {scored.folder} has no labelled scan. Name another split or cohort.")
    _check_same_grid(scored, metadata.store_policy)
    _check_same_classes(scored, metadata.label_names)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch types no 3d format
    return evaluate_network(
        network, scans, names=metadata.label_names, patch=metadata.patch, overlap=metadata.overlap, device=device
    )


def evaluate_network(
    network: SegmentationNetwork,
    scans: Sequence[StoredVolume],
    *,
    names: Mapping[int, str],
    patch: Shape3D,
    overlap: float,
    device: torch.device,
) -> Evaluation:
    """Segment each scan on the store's grid and compare it with its label.

    Args:
        network: Lies on `device`; is left in evaluation mode.
        scans: With labels.
        names: Of the foreground classes, by value.
        patch: (D, H, W) voxels of the sliding window.
        overlap: Of neighbouring windows, as a fraction of the patch.
        device: Where the network runs.
    """
    network.eval()
    cases = []
    for scan in scans:
        predicted = predict_stored(network, scan, patch=patch, overlap=overlap, device=device).numpy()
        reference = scan.read_label((0, 0, 0), scan.shape)
        cases.append(case_score(scan.scan_id, predicted, reference, labels=tuple(names)))
    return Evaluation(tuple(cases), names)


def predict_stored(
    network: SegmentationNetwork, scan: StoredVolume, *, patch: Shape3D, overlap: float, device: torch.device
) -> torch.Tensor:
    """(D, H, W) uint8 labels of a stored scan, on the CPU."""
    image = scan.normalised().to(device)
    pad_value = scan.normalisation.pad_value
    return predict_labels(network, image, patch=patch, overlap=overlap, pad_value=pad_value).cpu()


def _check_same_grid(cohort: Cohort, model_policy: Mapping[str, object] | None) -> None:
    # How voxels are packed on the disk changes nothing that the network sees.
    of_cohort, of_model = (
        StorePolicy.model_validate(policy or {}).model_dump(exclude={"packing"})
        for policy in (cohort.policy, model_policy)
    )
    if of_cohort != of_model:
        key = next(key for key in of_model if of_model[key] != of_cohort[key])
        raise DataError(
            f"{cohort.folder} was stored with {key} {of_cohort[key]}, and the model was trained with {of_model[key]}. "
            "Ingest the scans with the model's settings, or segment them with `medssl predict`."
        )


def _check_same_classes(cohort: Cohort, of_model: Mapping[int, str]) -> None:
    of_cohort = class_names(cohort)
    for label in of_model.keys() & of_cohort.keys():
        if of_model[label] != of_cohort[label]:
            raise DataError(
                f"class {label} is '{of_cohort[label]}' in {cohort.folder} and '{of_model[label]}' in the model. "
                "Give a cohort with the model's classes."
            )
