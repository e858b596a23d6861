"""Rank the scans of a cohort by the energy that a trained pretext task gives them: an archive's outliers come out
on top.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from medssl.runs.run import Run
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume, open_volume
from medssl.training.checkpoint import read_checkpoint
from medssl.views.region import Region

SEED = 0
MAD_TO_STD = 1.4826  # of a normal distribution
MEAN_DEVIATION_TO_STD = 1.2533  # the same, for the mean of absolute deviations
MIN_PEERS = 5
LOOK_FROM = 3.0  # robust standard deviations
NOTHING_TO_JUDGE = "nothing to judge"


@dataclass(frozen=True)
class ScanEnergy:
    """One scan. energy: mean over its judged regions, in the task's units. spread: standard deviation over them.

    surprise: distance of the energy from the cohort's median, in robust standard deviations; 3 and more on either side
    deserves a look. All three are None where no region could be judged. judged: share of its regions in which the
    task found something to score. direction: "above" or "below" the median, or "nothing to judge" for a scan with
    hardly a region that could be: blank, saturated, or a mask that was exported as a scan.
    """

    scan_id: str
    modality: str | None
    energy: float | None
    spread: float | None
    surprise: float | None
    judged: float
    direction: str

    @property
    def deserves_a_look(self) -> bool:
        """Whether it is an outlier."""
        return self.direction == NOTHING_TO_JUDGE or abs(self.surprise or 0.0) >= LOOK_FROM

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def score_scans(
    run_folder: Path,
    cohort_folder: Path,
    *,
    regions: int = 4,
    plugin_files: Sequence[Path] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ScanEnergy]:
    """Every accepted scan of a cohort, the oddest first (see `ranked`), by the pretext task of a finished pretraining.

    regions: read per scan, at places that depend on nothing but their number. The task runs in evaluation mode.
    Raises UsageError for a run that is no pretraining, CheckpointError where its state cannot be used, DataError for
    a cohort without scans.
    """
    run = Run.open(run_folder)
    if run.kind != "pretrain":
        raise UsageError(
            f"{run_folder} is a run of the kind '{run.kind}'. Scans are scored by a run of `medssl pretrain`."
        )
    cohort = Cohort.open(cohort_folder)
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
            f"the checkpoint of {run.folder} is from a medssl that kept no statistics of its batch norms, so each "
            "scan's energy would depend on the scans beside it. Train a few steps more (a larger loop.steps, and "
            "--resume), or anew."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ready: PretextTask = task.to(device).eval()
    return ready


def region_energies(
    task: PretextTask,
    scans: Sequence[StoredVolume],
    *,
    patch: Shape3D,
    regions: int,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[float]]:
    """Energies of `regions` regions of each scan, by scan id; NaN where the task had nothing to score.

    A task that compares samples sees different scans in a batch.
    """
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
                found = _judged(task(task.views(region)))
            # The last batch reaches into the next round of the scans.
            for number, scan_id, energy in zip(region.numbers, region.scan_ids, found, strict=True):
                if number < total:
                    energies[scan_id].append(energy)
            progress(min(total, (step + 1) * size), total)
    return dict(energies)


def _judged(step: Step) -> list[float]:
    """Energy of each sample, NaN where it rests on nothing: the 0 of an empty mean would be the best of all."""
    energy = step.energy.float()
    if step.valid_fraction is not None:
        energy = energy.masked_fill(step.valid_fraction.to(energy.device) <= 0, math.nan)
    return [value if math.isfinite(value) else math.nan for value in energy.cpu().tolist()]


def ranked(energies: Mapping[str, list[float]], modalities: Mapping[str, str | None]) -> list[ScanEnergy]:
    """Scans with nothing to judge, then those whose energy is farthest from the median, on either side.

    An unusually low energy is no praise: a smooth or empty scan is easy to predict. Each is held against the scans of
    its own modality, where at least five of it could be judged.
    """
    known = {scan_id: [e for e in values if not math.isnan(e)] for scan_id, values in energies.items()}
    shares = {scan_id: len(known[scan_id]) / max(1, len(values)) for scan_id, values in energies.items()}
    least = 0.5 * float(np.median(list(shares.values()))) if shares else 0.0
    means = {scan_id: float(np.mean(values)) for scan_id, values in known.items() if values}
    groups: dict[str | None, list[float]] = defaultdict(list)
    for scan_id, mean in means.items():
        groups[modalities.get(scan_id)].append(mean)
    out = []
    for scan_id, share in shares.items():
        modality, mean_energy = modalities.get(scan_id), means.get(scan_id)
        spread = surprise = None
        direction = NOTHING_TO_JUDGE
        if mean_energy is not None:
            own = groups[modality]
            spread = float(np.std(known[scan_id]))
            surprise = surprise_of(mean_energy, own if len(own) >= MIN_PEERS else list(means.values()))
            if share >= least:
                direction = "above" if surprise >= 0 else "below"
        out.append(ScanEnergy(scan_id, modality, mean_energy, spread, surprise, share, direction))
    return sorted(out, key=_oddest_first)


def surprise_of(energy: float, peers: Sequence[float]) -> float:
    """Distance of `energy` from the median of `peers` in robust standard deviations; 0 where all peers are equal.

    Where more than half of them are equal, their median deviation is 0, and the mean deviation takes its place
    (Iglewicz & Hoaglin 1993).
    """
    values = np.array(peers)
    middle = float(np.median(values))
    deviations = np.abs(values - middle)
    width = MAD_TO_STD * float(np.median(deviations)) or MEAN_DEVIATION_TO_STD * float(deviations.mean())
    return (energy - middle) / width if width > 0 else 0.0


def _oddest_first(scan: ScanEnergy) -> tuple[bool, float, float, str]:
    nothing = scan.direction == NOTHING_TO_JUDGE
    surprise = scan.surprise or 0.0
    return not nothing, scan.judged if nothing else 0.0, -abs(surprise), scan.scan_id
