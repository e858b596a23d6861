"""Rank the scans of a cohort by the energy that a trained pretext task gives them, outliers first."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssl.cohort.cohort import Cohort
from medssl.config import PretrainConfig
from medssl.encoders.build import build_encoder
from medssl.encoders.encoder import EncoderDescription
from medssl.errors import CheckpointError, DataError, UsageError
from medssl.loading.loader import RegionLoader
from medssl.loading.plan import BatchPlan
from medssl.plugins import load_task, task_config
from medssl.pretext.moments import RunningMoments
from medssl.pretext.task import PretextTask, Step
from medssl.progress import Silent, StageProgress
from medssl.runs.run import Run
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume, open_volume
from medssl.training.checkpoint import read_checkpoint
from medssl.views.region import Region

SEED = 0
MAD_TO_STD = 1.4826  # of a normal distribution
MEAN_DEVIATION_TO_STD = 1.2533  # the same, for the mean of absolute deviations
MIN_PEERS = 5
OUTLIER_Z = 3.0  # robust standard deviations
NOTHING_TO_SCORE = "nothing to score"


@dataclass(frozen=True)
class ScanEnergy:
    """The energy of one scan; energy, spread and robust_z are None where no region could be scored.

    Attributes:
        scan_id: Pseudonym of the scan.
        modality: As in the manifest.
        energy: Mean over the scored regions, in the task's units.
        spread: Standard deviation over them.
        robust_z: Distance of the energy from the median of the scan's modality, in robust standard deviations.
        valid_fraction: Fraction of its regions in which the task had something to score.
        direction: "above" or "below" the median, or "nothing to score" for a scan with hardly a valid region: blank,
            saturated, or a mask that was exported as a scan.
    """

    scan_id: str
    modality: str | None
    energy: float | None
    spread: float | None
    robust_z: float | None
    valid_fraction: float
    direction: str

    @property
    def is_outlier(self) -> bool:
        """Whether a person should look at the scan: 3 robust standard deviations off, or nothing to score."""
        return self.direction == NOTHING_TO_SCORE or abs(self.robust_z or 0.0) >= OUTLIER_Z

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def score_scans(
    run_folder: str | Path,
    cohort_folder: str | Path,
    *,
    regions: int = 4,
    plugin_files: Sequence[Path] = (),
    progress: StageProgress | None = None,
) -> list[ScanEnergy]:
    """Energies of every accepted scan of a cohort by the task of a finished pretraining, outliers first (`ranked`).

    Args:
        run_folder: Run of a pretraining.
        cohort_folder: Any cohort, not necessarily that of the run.
        regions: Regions to read of each scan, at positions that depend on nothing but their number.
        plugin_files: Files with the run's task, where no installed plugin has it.
        progress: Counts regions; silent by default.

    Raises:
        UsageError: The run is not a pretraining.
        CheckpointError: Its state cannot be used.
        DataError: The cohort has no accepted scan.
    """
    run = Run.open(Path(run_folder))
    if run.kind != "pretrain":
        raise UsageError(
            f"{run_folder} is a run of the kind '{run.kind}'. Scans are scored by a run of `medssl pretrain`."
        )
    cohort = Cohort.open(Path(cohort_folder))
    modalities = {row.scan_id: row.modality for row in cohort.accepted()}
    if not modalities:
        raise DataError(f"{cohort_folder} has no accepted scan. Look at its manifest, or ingest again.")
    config = PretrainConfig.model_validate(run.config)
    task = trained_task(run, config, plugin_files=[*config.plugins, *plugin_files])
    d, h, w = run.metadata["patch"]
    scans = [open_volume(cohort.store, scan_id) for scan_id in modalities]
    energies = region_energies(
        task, scans, patch=(d, h, w), regions=regions, batch_size=config.loop.batch_size, progress=progress
    )
    return ranked(energies, modalities)


def trained_task(run: Run, config: PretrainConfig, *, plugin_files: Sequence[Path] = ()) -> PretextTask:
    """The task of a run with the weights of its last checkpoint, in evaluation mode, on the GPU where there is one."""
    state = read_checkpoint(run.paths.checkpoint)
    if state is None or "encoder" not in run.metadata:
        raise CheckpointError(
            f"{run.folder} has no checkpoint to score with. Finish the training: add --resume to its command."
        )
    loaded = load_task(str(config.task.get("name", "")), files=plugin_files)
    encoder = build_encoder(EncoderDescription.model_validate(run.metadata["encoder"]))
    task = loaded.cls(encoder, task_config(loaded.cls, config.task))
    try:
        task.load_state_dict(state["module"])
    except RuntimeError as wrong:
        reason = str(wrong).strip().splitlines()[0]
        raise CheckpointError(
            f"the checkpoint of {run.folder} does not fit the task '{loaded.name}' that is installed now: {reason} "
            f"The run was made with {run.metadata.get('task_origin', 'another version')}: install that."
        ) from wrong
    moments = [name for name, part in task.named_modules() if isinstance(part, RunningMoments)]
    if any(f"{name}.batches" not in state["module"] for name in moments):
        raise CheckpointError(
            f"the checkpoint of {run.folder} is from a medssl that kept no statistics of its batch norms, so the "
            "energy of a scan would depend on the scans beside it. Train a few more steps (a larger loop.steps with "
            "--resume), or train a new run."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained: PretextTask = task.to(device).eval()
    return trained


def region_energies(
    task: PretextTask,
    scans: Sequence[StoredVolume],
    *,
    patch: Shape3D,
    regions: int,
    batch_size: int,
    progress: StageProgress | None = None,
) -> dict[str, list[float]]:
    """Energies of `regions` regions of each scan, by scan id; NaN where the task had nothing to score.

    Scans take turns, so a task that compares samples sees different scans in a batch.
    """
    progress = progress or Silent()
    size = max(2, batch_size)
    plan = BatchPlan(scans, task.crops(patch), batch_size=size, seed=SEED)
    total = len(scans) * regions
    device = next(task.parameters()).device
    energies: dict[str, list[float]] = defaultdict(list)
    with RegionLoader(plan, workers=0, first_step=0) as loader, torch.random.fork_rng(devices=[]):
        for step, batch in zip(range(math.ceil(total / size)), loader, strict=False):
            torch.manual_seed(SEED + step)  # tasks may draw from torch
            region = Region(batch, device=device, seed=SEED)
            with torch.no_grad():
                batch_energies = _valid_energies(task(task.views(region)))
            # Batches are full, so the last one reaches beyond the regions asked for: those are dropped.
            for number, scan_id, energy in zip(region.numbers, region.scan_ids, batch_energies, strict=True):
                if number < total:
                    energies[scan_id].append(energy)
            progress.step("regions", min(total, (step + 1) * size), total)
    return dict(energies)


def _valid_energies(step: Step) -> list[float]:
    """Energy of each sample, NaN where nothing was scored: the 0 of an empty mean would look like the best energy."""
    energy = step.energy.float()
    if step.valid_fraction is not None:
        energy = energy.masked_fill(step.valid_fraction.to(energy.device) <= 0, math.nan)
    return [value if math.isfinite(value) else math.nan for value in energy.cpu().tolist()]


def ranked(energies: Mapping[str, list[float]], modalities: Mapping[str, str | None]) -> list[ScanEnergy]:
    """Scans with nothing to score, then those whose energy is farthest from the median, on either side.

    An unusually low energy is suspicious too: a smooth or empty scan is easy to predict. A scan is compared with those
    of its modality where at least five of them could be scored, else with all.
    """
    valid = {scan_id: [e for e in values if not math.isnan(e)] for scan_id, values in energies.items()}
    fractions = {scan_id: len(valid[scan_id]) / max(1, len(values)) for scan_id, values in energies.items()}
    # Relative to the other scans: a task that often has nothing to score (small patches, much air) makes no outliers.
    min_fraction = 0.5 * float(np.median(list(fractions.values()))) if fractions else 0.0
    means = {scan_id: float(np.mean(values)) for scan_id, values in valid.items() if values}
    by_modality: dict[str | None, list[float]] = defaultdict(list)
    for scan_id, mean in means.items():
        by_modality[modalities.get(scan_id)].append(mean)
    scans = []
    for scan_id, fraction in fractions.items():
        modality, energy = modalities.get(scan_id), means.get(scan_id)
        spread = z = None
        direction = NOTHING_TO_SCORE
        if energy is not None:
            peers = by_modality[modality]
            spread = float(np.std(valid[scan_id]))
            z = robust_z(energy, peers if len(peers) >= MIN_PEERS else list(means.values()))
            if fraction >= min_fraction:
                direction = "above" if z >= 0 else "below"
        scans.append(ScanEnergy(scan_id, modality, energy, spread, z, fraction, direction))
    return sorted(scans, key=_outliers_first)


def robust_z(energy: float, peers: Sequence[float]) -> float:
    """Distance of `energy` from the median of `peers` in robust standard deviations; 0 where all peers are equal.

    Where more than half of them are equal, their median deviation is 0, and the mean deviation takes its place
    (Iglewicz & Hoaglin 1993).
    """
    values = np.array(peers)
    median = float(np.median(values))
    deviations = np.abs(values - median)
    std = MAD_TO_STD * float(np.median(deviations)) or MEAN_DEVIATION_TO_STD * float(deviations.mean())
    return (energy - median) / std if std > 0 else 0.0


def _outliers_first(scan: ScanEnergy) -> tuple[bool, float, float, str]:
    is_empty = scan.direction == NOTHING_TO_SCORE
    return not is_empty, scan.valid_fraction if is_empty else 0.0, -abs(scan.robust_z or 0.0), scan.scan_id
