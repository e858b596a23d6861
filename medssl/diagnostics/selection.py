"""Which checkpoint to keep, chosen without labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medssl.diagnostics.monitor import PREFIX
from medssl.errors import ConfigError
from medssl.suggest import did_you_mean

# The metric of each rule; higher is better.
RULES: Mapping[str, str | None] = {
    "last": None,
    "rankme": "dense_rankme",
    "lidar": "pooled_lidar",
    "energy-gap": "energy_auc",
}
# Random features have the highest rank of all: the first part of a training is left out.
WARM_UP_FRACTION = 0.25


@dataclass(frozen=True)
class Candidate:
    """A checkpoint and its diagnosis. metrics: as in `Diagnosis.metrics`. alarm: that of its verdict."""

    step: int
    metrics: Mapping[str, float]
    alarm: bool = False


@dataclass(frozen=True)
class Choice:
    """The step to keep, and the reason in words."""

    step: int
    reason: str


def choose_checkpoint(candidates: Sequence[Candidate], *, select: str) -> Choice:
    """The best of a run's checkpoints by `select`: last, rankme, lidar or energy-gap.

    Checkpoints with an alarm and those of the first quarter of the training are left out; the later of equals wins. If
    none remains, the last is taken and the reason says so. Raises ConfigError for an unknown rule,
    ValueError without candidates.
    """
    if select not in RULES:
        hint = did_you_mean(select, RULES)
        raise ConfigError(f"unknown rule '{select}' for choosing a checkpoint{hint} Choose from {', '.join(RULES)}.")
    if not candidates:
        raise ValueError("choose_checkpoint needs at least one candidate")
    ordered = sorted(candidates, key=lambda candidate: candidate.step)
    last, metric = ordered[-1], RULES[select]
    if metric is None:
        return Choice(last.step, "the last checkpoint, as asked")
    key = f"{PREFIX}{metric}"
    # A measure is 0 where its guard found nothing to measure.
    first_step = WARM_UP_FRACTION * last.step
    comparable = [c for c in ordered if c.metrics.get(key, 0.0) > 0 and not c.alarm and c.step >= first_step]
    if not comparable:
        return Choice(last.step, f"the last checkpoint: none without an alarm has a '{key}' to compare")
    best = max(comparable, key=lambda candidate: (candidate.metrics[key], candidate.step))
    value = best.metrics[key]
    return Choice(best.step, f"highest {key} ({value:.4g}) of {len(comparable)} checkpoints without an alarm")
