"""Which checkpoint to keep when there are no labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medssl.diagnostics.monitor import PREFIX
from medssl.errors import ConfigError
from medssl.suggest import did_you_mean

# What each rule reads; a checkpoint is better the higher it is.
RULES: Mapping[str, str | None] = {
    "last": None,
    "rankme": "dense_rankme",
    "lidar": "pooled_lidar",
    "energy-gap": "energy_auc",
}
# Random features have the highest rank of all: the first part of a training is left out.
WARM_UP_SHARE = 0.25


@dataclass(frozen=True)
class Candidate:
    """A checkpoint and its diagnosis. metrics: as in `Diagnosis.metrics`. alarm: of its verdict."""

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

    Checkpoints with an alarm and those of the first quarter of the training do not compete; the later of equals wins.
    Where none can be compared, the last is taken and the reason says so. Raises ConfigError for an unknown rule,
    ValueError without candidates.
    """
    if select not in RULES:
        hint = did_you_mean(select, RULES)
        raise ConfigError(
            f"there is no rule '{select}' for choosing a checkpoint{hint} Choose from {', '.join(RULES)}."
        )
    if not candidates:
        raise ValueError("there is no checkpoint to choose from")
    ordered = sorted(candidates, key=lambda candidate: candidate.step)
    last, metric = ordered[-1], RULES[select]
    if metric is None:
        return Choice(last.step, "the last checkpoint, as asked")
    key = f"{PREFIX}{metric}"
    # 0 is what a measure's guard gives where there is nothing to measure
    able = [c for c in ordered if c.metrics.get(key, 0.0) > 0 and not c.alarm and c.step >= WARM_UP_SHARE * last.step]
    if not able:
        return Choice(last.step, f"the last checkpoint: none without an alarm has a '{key}' to compare")
    best = max(able, key=lambda candidate: (candidate.metrics[key], candidate.step))
    return Choice(best.step, f"highest {key} ({best.metrics[key]:.4g}) of {len(able)} checkpoints without an alarm")
