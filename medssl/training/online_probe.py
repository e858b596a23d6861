"""How well a few labels can be read off the encoder while it is pretrained, which learns nothing from them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from medssl.cohort.cohort import Cohort
from medssl.config import ProbeConfig
from medssl.diagnostics.probe import probe_both_halves
from medssl.errors import ConfigError, DataError
from medssl.loading.crops import Crop
from medssl.loading.loader import batch_at
from medssl.loading.plan import BatchPlan
from medssl.pretext.task import PretextTask
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume, open_volume
from medssl.training.intervals import interval, is_due
from medssl.views.region import Region

PROBES = 10  # in a training, unless it says how often
REGIONS = 2  # patches of a scan, each centred on a labelled voxel


class OnlineProbe:
    """A linear probe on fixed patches of labelled scans, fitted anew each time on frozen features.

    It draws no random numbers, leaves no gradient and keeps no state: a training with it equals one without, and a
    resumed one says the same. Lives on rank 0.
    """

    def __init__(
        self,
        task: PretextTask,
        scans: Sequence[StoredVolume],
        *,
        names: Mapping[int, str],
        patch: Shape3D,
        seed: int,
        every: int | str,
    ) -> None:
        """Prepare to probe.

        Args:
            task: The task whose encoder is probed.
            scans: Labelled scans; the second half of them scores what is fitted on the first, and the reverse.
            names: Of the foreground classes, by label value.
            patch: Edges D, H, W of an image in voxels.
            seed: Of the choice of regions.
            every: Steps between probes, or 'auto' for about `PROBES` in a training.
        """
        self.task, self.scans, self._names = task, tuple(scans), dict(names)
        self._seed, self._every = seed, every
        self._plan = BatchPlan(
            scans, {"patch": Crop(size=patch)}, batch_size=REGIONS * len(scans), seed=seed, foreground=1.0
        )
        self._fixed: tuple[Tensor, Tensor, Tensor] | None = None

    def is_due(self, done: int, total: int) -> bool:
        """Whether to probe after `done` steps: before the first, every so many, and after the last."""
        return is_due(done, total, every=self.interval(self._every, total))

    @staticmethod
    def interval(every: int | str, total: int) -> int:
        """Steps between two probes, as set or automatic."""
        return interval(every, total, times=PROBES)

    def measure(self, *, device: torch.device) -> dict[str, float]:
        """Of the encoder that the task would export: `probe/dice`, the mean over foreground classes, `probe/dice_...`
        by the name of each, and `probe/accuracy`.
        """
        images, labels, second = self._patches(device)
        encoder, classes = self.task.exported_encoder(), 1 + max(self._names)
        score = probe_both_halves(encoder, images, labels, classes=classes, second=second)
        each = {f"probe/dice_{self._names[label]}": dice for label, dice in score.dice.items()}
        return {"probe/dice": score.mean_dice, **each, "probe/accuracy": score.accuracy}

    def _patches(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels, and which are of the second half of the scans."""
        if self._fixed is None:
            region = Region(batch_at(self._plan, with_labels=True), device=device, seed=self._seed)
            later = {scan.scan_id for scan in self.scans[len(self.scans) // 2 :]}
            second = torch.tensor([scan in later for scan in region.scan_ids], device=device)
            self._fixed = region.crop("patch"), region.label("patch"), second
        return self._fixed


def online_probe(
    task: PretextTask, settings: ProbeConfig, cohort: Cohort, *, patch: Shape3D, seed: int
) -> OnlineProbe | None:
    """The probe that `settings` ask for, on labelled scans of the training split alone; None for none.

    The scans are those that fine-tuning with this seed and as many labels sees: the probe costs no further label.
    Raises ConfigError when there are fewer than asked for, DataError when nothing is labelled in them.
    """
    if settings.num_labelled == 0:
        return None
    rows = cohort.accepted(split="train", labelled=True)
    if settings.num_labelled > len(rows):
        raise ConfigError(
            f"probe.num_labelled is {settings.num_labelled}, but the split 'train' has {len(rows)} labelled scans. "
            "Lower it, or set it to 0 for no probe."
        )
    classes = sorted({label for row in rows for label in row.labels} - {0})
    if not classes:
        raise DataError("The labels of the training split hold background only. Set probe.num_labelled=0.")
    names = {label: cohort.label_names.get(label, str(label)) for label in classes}
    scans = [open_volume(cohort.store, row.scan_id) for row in cohort.sample_labelled(settings.num_labelled, seed=seed)]
    return OnlineProbe(task, scans, names=names, patch=patch, seed=seed, every=settings.every)
