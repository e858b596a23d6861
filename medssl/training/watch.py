"""Is the encoder learning, or collapsing? Asked now and then during a pretraining, on the same images each time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medssl.diagnostics.monitor import CollapseMonitor, Diagnosis
from medssl.diagnostics.selection import Candidate, Choice, choose_checkpoint
from medssl.diagnostics.verdict import Verdict
from medssl.encoders.weights import load_encoder, save_encoder
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
STRENGTH = 0.25  # of the intensities of the second view
HEARD = 16  # batches between two diagnoses whose energies and embeddings are kept: 32 pairs at a batch of 2
TIMES = 20  # diagnoses of a training, unless it says how often


def fixed_views(patch: Shape3D) -> dict[str, Crop]:
    """A plain crop, and another of nearly the same place, as the next scan of the same patient might show it.

    Milder than the views of pretext tasks: on 16 scans of hippocampi the variance between scans over that within (F)
    was 1.0 for an untrained encoder and 3 to 9 for trained ones. With mirroring and 10 degrees it was 1.3 to 3, hardly
    more than chance.
    """
    again = Crop(size=patch, rotation_deg=(5.0, 5.0, 5.0), zoom=(0.95, 1.05), anchor="patch", max_offset=0.05)
    return {"patch": Crop(size=patch), "again": again}


class CollapseWatch:
    """Diagnoses the encoder that a task would export, and keeps candidates where one is to be chosen at the end.

    The images are plain crops of the first scans of a seeded order, each with a second view: turned, shifted and with
    other intensities. They are the same in every diagnosis and after a restart. Lives on rank 0.
    """

    def __init__(
        self,
        task: PretextTask,
        scans: Sequence[StoredVolume],
        *,
        patch: Shape3D,
        seed: int,
        every: int | str,
        select: str = "last",
    ) -> None:
        """every: steps between diagnoses, or 'auto' for about 20 in a training. select: as in `choose_checkpoint`."""
        self.task, self.select = task, select
        self._every, self._seed = every, seed
        self._plan = BatchPlan(scans, fixed_views(patch), batch_size=min(IMAGES, 2 * len(scans)), seed=seed)
        self._monitor = CollapseMonitor(views_per_scan=VIEWS)
        self._said = ""
        self._candidates: list[Candidate] = []
        self._images: Tensor | None = None

    def is_due(self, done: int, total: int) -> bool:
        """Whether to diagnose after `done` steps: before the first, every so many, and after the last."""
        return is_due(done, total, every=self.interval(self._every, total))

    @staticmethod
    def interval(every: int | str, total: int) -> int:
        """Steps between two diagnoses, as asked or automatic."""
        return interval(every, total, times=TIMES)

    def listens(self, done: int, total: int) -> bool:
        """Whether to `observe` the step that is just done: often enough that a diagnosis rests on many samples, seldom
        enough that a GPU is not kept waiting.
        """
        return done % max(1, self.interval(self._every, total) // HEARD) == 0

    def observe(self, output: Step) -> None:
        """Take energies and embeddings of one step."""
        self._monitor.observe(output)

    def diagnose(self, done: int, run: Run, *, device: torch.device) -> Diagnosis:
        """Measure, judge, and write both to the run; an alarm is also said in its log."""
        encoder = self.task.exported_encoder()
        was_training = encoder.training
        with torch.no_grad():
            diagnosis = self._monitor.evaluate(encoder, self._fixed_images(device))
        encoder.train(was_training)
        run.log(done, diagnosis.metrics)
        run.update(health=str(diagnosis.verdict), verdict=diagnosis.verdict.as_dict())
        if diagnosis.verdict.alarm:
            run.note(f"step {done}: {diagnosis.verdict}")
        if self.select != "last":
            save_encoder(self._folder(run, done), encoder, self.task.exported_decoder(), facts={"step": done})
            self._candidates.append(Candidate(done, diagnosis.metrics, diagnosis.verdict.alarm))
        return diagnosis

    def is_news(self, verdict: Verdict) -> bool:
        """Whether it is another verdict than the last that was asked about; the first look is none."""
        before, self._said = self._said or "first look", verdict.name
        return verdict.name != before

    def save_chosen(self, run: Run, *, facts: Mapping[str, Any]) -> Choice | None:
        """Write the encoder that outlives the run: the last one, or the candidate that `select` prefers."""
        if self.select == "last" or not self._candidates:
            save_encoder(run.folder, self.task.exported_encoder(), self.task.exported_decoder(), facts=facts)
            return None
        choice = choose_checkpoint(self._candidates, select=self.select)
        encoder, decoder = load_encoder(self._folder(run, choice.step))
        save_encoder(run.folder, encoder, decoder, facts={**facts, "step": choice.step, "selected": choice.reason})
        run.note(f"kept the encoder of step {choice.step}: {choice.reason}")
        return choice

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: verdicts compare with earlier evaluations."""
        candidates = [{"step": c.step, "metrics": dict(c.metrics), "alarm": c.alarm} for c in self._candidates]
        return {"monitor": self._monitor.state_dict(), "candidates": candidates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the checkpoint left off."""
        self._monitor.load_state_dict(state["monitor"])
        self._candidates = [Candidate(**candidate) for candidate in state["candidates"]]

    def _fixed_images(self, device: torch.device) -> Tensor:
        if self._images is None:
            region = Region(batch_at(self._plan), device=device, seed=self._seed)
            again = IntensityChain(STRENGTH)(region.crop("again"), region.random, "again")
            self._images = torch.stack([region.crop("patch"), again], dim=1).flatten(0, 1)  # (scans * VIEWS, ...)
        return self._images

    def _folder(self, run: Run, step: int) -> Path:
        return run.checkpoints / f"candidate-{step:07d}"
