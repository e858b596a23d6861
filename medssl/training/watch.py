"""Is the encoder learning, or collapsing? Asked now and then during a pretraining, on the same images each time."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medssl.diagnostics.monitor import CollapseMonitor, Diagnosis
from medssl.diagnostics.verdict import Verdict
from medssl.loading.crops import Crop
from medssl.loading.loader import batch_at
from medssl.loading.plan import BatchPlan
from medssl.pretext.task import PretextTask, Step
from medssl.runs.run import Run
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume
from medssl.training.intervals import interval, is_due
from medssl.views.intensity import IntensityChain
from medssl.views.region import Region

IMAGES = 16
VIEWS = 2
STRENGTH = 0.25  # of the intensity changes of the second view
OBSERVED_BATCHES = 16  # between two evaluations at least; 32 pairs at a batch of 2
EVALUATIONS = 20  # of a training, unless it says how often


def fixed_views(patch: Shape3D) -> dict[str, Crop]:
    """A plain crop, and a second one at nearly the same position, as the next scan of the patient might show it.

    Milder than the views of pretext tasks: on 16 scans of hippocampi the variance between scans over that within (F)
    was 1.0 for an untrained encoder and 3 to 9 for trained ones. With mirroring and 10 degrees it was 1.3 to 3, hardly
    more than chance.
    """
    again = Crop(size=patch, rotation_deg=(5.0, 5.0, 5.0), zoom=(0.95, 1.05), anchor="patch", max_offset=0.05)
    return {"patch": Crop(size=patch), "again": again}


class CollapseWatch:
    """Diagnoses the encoder that a task would export. Lives on rank 0.

    The images are plain crops of the first scans of a seeded order, each with a second view: turned, shifted and with
    other intensities. They are the same in every evaluation and after a restart.
    """

    def __init__(
        self, task: PretextTask, scans: Sequence[StoredVolume], *, patch: Shape3D, seed: int, every: int | str
    ) -> None:
        """Prepare to watch.

        Args:
            task: The task whose encoder is diagnosed.
            scans: Scans to choose the images from.
            patch: Edges D, H, W of an image in voxels.
            seed: Of the choice of images and of their second views.
            every: Steps between evaluations, or 'auto' for about `EVALUATIONS` in a training.
        """
        self.task = task
        self._every, self._seed = every, seed
        self._plan = BatchPlan(scans, fixed_views(patch), batch_size=min(IMAGES, 2 * len(scans)), seed=seed)
        self._monitor = CollapseMonitor(views_per_scan=VIEWS)
        self._last_verdict: str | None = None
        self._images: Tensor | None = None

    def evaluate_due(self, done: int, total: int) -> bool:
        """Whether to evaluate after `done` steps: before the first, every so many, and after the last."""
        return is_due(done, total, every=self.interval(self._every, total))

    @staticmethod
    def interval(every: int | str, total: int) -> int:
        """Steps between two evaluations, as set or automatic."""
        return interval(every, total, times=EVALUATIONS)

    def should_observe(self, done: int, total: int) -> bool:
        """Whether to `observe` the step that is just done: often enough that an evaluation rests on many samples,
        seldom enough that a GPU is not kept waiting.
        """
        return done % max(1, self.interval(self._every, total) // OBSERVED_BATCHES) == 0

    def observe(self, output: Step) -> None:
        """Take energies and embeddings of one step."""
        self._monitor.observe(output)

    def evaluate(self, done: int, run: Run, *, device: torch.device) -> Diagnosis:
        """Measure, judge, and write both to the run; an alarm also goes to its log."""
        encoder = self.task.exported_encoder()
        was_training = encoder.training
        with torch.no_grad():
            diagnosis = self._monitor.evaluate(encoder, self._fixed_images(device))
        encoder.train(was_training)
        run.log(done, diagnosis.metrics)
        run.update(health=str(diagnosis.verdict), verdict=diagnosis.verdict.as_dict())
        if diagnosis.verdict.alarm:
            run.note(f"step {done}: {diagnosis.verdict}")
        return diagnosis

    def changed(self, verdict: Verdict) -> bool:
        """Whether a verdict differs from the one of the call before; at the start, from 'first evaluation'."""
        before, self._last_verdict = self._last_verdict or "first evaluation", verdict.name
        return verdict.name != before

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: verdicts compare with earlier evaluations."""
        return self._monitor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the checkpoint left off."""
        self._monitor.load_state_dict(state)

    def _fixed_images(self, device: torch.device) -> Tensor:
        if self._images is None:
            region = Region(batch_at(self._plan), device=device, seed=self._seed)
            again = IntensityChain(STRENGTH)(region.crop("again"), region.random, "again")
            self._images = torch.stack([region.crop("patch"), again], dim=1).flatten(0, 1)  # (scans * VIEWS, ...)
        return self._images
