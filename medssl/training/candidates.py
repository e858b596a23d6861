"""The encoder that outlives a pretraining: the last one, or the best of those kept on the way."""

from collections.abc import Mapping, Sequence
from typing import Any

from medssl.diagnostics.monitor import Diagnosis
from medssl.diagnostics.selection import Candidate, Choice, choose_checkpoint
from medssl.encoders.weights import load_encoder, save_encoder
from medssl.pretext.task import PretextTask
from medssl.runs.run import Run


class EncoderCandidates:
    """Keeps the encoder of each evaluation and saves the one that `select` prefers at the end. Lives on rank 0.

    With 'last' nothing is kept on the way: the encoder of the last step is saved.
    """

    def __init__(self, task: PretextTask, *, select: str) -> None:
        """`select`: a rule of `choose_checkpoint`."""
        self.task, self.select = task, select
        self._candidates: list[Candidate] = []

    def add(self, done: int, diagnosis: Diagnosis, run: Run) -> None:
        """Keep the encoder after `done` steps with what its evaluation measured."""
        if self.select == "last":
            return
        encoder, decoder = self.task.exported_encoder(), self.task.exported_decoder()
        save_encoder(run.paths.candidate(done), encoder, decoder, metadata={"step": done})
        self._candidates.append(Candidate(done, diagnosis.metrics, diagnosis.verdict.alarm))

    def save_best(self, run: Run, *, metadata: Mapping[str, Any]) -> Choice | None:
        """Write the encoder that outlives the run into its folder, and return how it was chosen; None for the last."""
        if not self._candidates:
            encoder, decoder = self.task.exported_encoder(), self.task.exported_decoder()
            save_encoder(run.folder, encoder, decoder, metadata=metadata)
            return None
        choice = choose_checkpoint(self._candidates, select=self.select)
        best, its_decoder = load_encoder(run.paths.candidate(choice.step))
        chosen = {**metadata, "step": choice.step, "selected": choice.reason}
        save_encoder(run.folder, best, its_decoder, metadata=chosen)
        run.note(f"kept the encoder of step {choice.step}: {choice.reason}")
        return choice

    def state_dict(self) -> list[dict[str, Any]]:
        """For the checkpoint: step, metrics and alarm of each candidate; the weights lie beside it."""
        return [{"step": c.step, "metrics": dict(c.metrics), "alarm": c.alarm} for c in self._candidates]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on where the checkpoint left off."""
        self._candidates = [Candidate(**candidate) for candidate in state]
