"""The verdict on a pretraining: the failure by name, with its evidence and the thresholds that it crossed."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

VerdictName = Literal[
    "healthy",
    "first evaluation",
    "complete collapse",
    "dimensional collapse",
    "uniform teacher",
    "one prototype",
    "posterior collapse",
    "dead dictionary",
    "constant answer",
    "diverging norm",
    "diverging loss",
    "loss up, rank up",
]
Numbers = Mapping[str, float]

# Chen & He 2021 (SimSiam) read a collapse from the standard deviation on the sphere; 1 is isotropic. Pooled features of
# untrained encoders begin near 0.03, so a collapse must also have fallen to a quarter of the first evaluation.
MIN_STD, MIN_STD_FRACTION = 0.05, 0.25
# An energy that tells right from shuffled pairs no better than chance (reference/pretext_tasks.md, section 6) at two
# evaluations in a row, after two in a row did better than LEARNT_AUC. At 32 pairs, AUC scatters by 0.07.
MIN_AUC, LEARNT_AUC, MIN_PAIRS = 0.55, 0.7, 32
# An output that never depended on the input: pairs at chance level, or nearly so with the loss of the trivial solution.
# A training has about twenty evaluations; a slow start of a fifth of it is worth reporting.
TRIVIAL_FRACTION, DOUBTFUL_AUC, STUCK_EVALUATIONS = 0.98, 0.6, 4
MAX_LOSS = 100.0
# Garrido et al. 2022 (RankMe). Random features of an untrained encoder have the highest rank, so a falling rank alone
# raises no alarm: it must be a fifth of the possible and a third of the first, while the loss is lower than it was.
MIN_RANK_FRACTION, LOW_RANK_FRACTION, LOW_FRACTION_OF_FIRST = 0.1, 0.2, 1 / 3
RISES = 3
# Caron et al. 2021 (DINO) and its issues: entropy of the teacher as a fraction of ln K, and of its mean over samples.
MAX_ENTROPY, MIN_USAGE = 0.99, 0.1
MIN_ACTIVE = 0.05
MIN_ATOMS = 0.05
MAX_GROWTH = 10.0


@dataclass(frozen=True)
class Evidence:
    """One number and the threshold that it crossed, e.g. ("energy_auc", 0.51, "below 0.55 twice in a row")."""

    metric: str
    value: float
    threshold: str


@dataclass(frozen=True)
class Verdict:
    """A diagnosis. alarm: whether something is wrong. sentence: what, with its figures, and what to do."""

    name: VerdictName
    alarm: bool
    sentence: str
    evidence: tuple[Evidence, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"

    def as_dict(self) -> dict[str, Any]:
        """For the run's record: plain JSON values."""
        evidence = [{"metric": e.metric, "value": e.value, "threshold": e.threshold} for e in self.evidence]
        return {"name": self.name, "alarm": self.alarm, "sentence": self.sentence, "evidence": evidence}


def judge(history: Sequence[Numbers]) -> Verdict:
    """Verdict on the last of the evaluations of one run, oldest first; each maps a metric's name to its value.

    Rules whose metrics a task lacks are skipped. The first evaluation, before training, is never a failure: later ones
    are compared with it. The parts of a combined task, whose metrics begin with `PART/`, are judged separately, and the
    most serious verdict wins; of the task itself only the features and the loss are judged.
    """
    if len(history) < 2:
        return Verdict("first evaluation", alarm=False, sentence="later evaluations are compared with this one.")
    parts = sorted({metric.partition("/")[0] for metric in history[-1] if "/" in metric})
    by_part = {part: [_under(numbers, part) for numbers in history] for part in parts}
    shared = [_shared(numbers) for numbers in history] if parts else history
    for rule in RULES:
        for part, numbers in by_part.items():
            verdict = rule(numbers)
            if verdict is not None:
                return _of_part(part, verdict)
        verdict = rule(shared)
        if verdict is not None:
            return verdict
    return Verdict("healthy", alarm=False, sentence=_state(history[-1]))


def _under(numbers: Numbers, part: str) -> Numbers:
    return {key.removeprefix(f"{part}/"): value for key, value in numbers.items() if key.startswith(f"{part}/")}


def _shared(numbers: Numbers) -> Numbers:
    """Metrics that belong to no single part: the features, and the sum of the losses."""
    return {key: value for key, value in numbers.items() if key == "loss" or key.startswith(("dense_", "pooled_"))}


def _of_part(part: str, verdict: Verdict) -> Verdict:
    evidence = tuple(replace(evidence, metric=f"{part}/{evidence.metric}") for evidence in verdict.evidence)
    return replace(verdict, sentence=f"in {part}, {verdict.sentence}", evidence=evidence)


def _complete(history: Sequence[Numbers]) -> Verdict | None:
    first, last = history[0], history[-1]
    for metric in ("embedding_std", "dense_std"):
        if metric in first and metric in last and last[metric] < min(MIN_STD, MIN_STD_FRACTION * first[metric]):
            return _alarm(
                "complete collapse",
                f"all features are becoming equal: their spread fell from {first[metric]:.3f} to {last[metric]:.3f} "
                "(1 is isotropic). Strengthen what keeps them apart (negatives, variance term, stop-gradient), or "
                "lower optim.lr.",
                evidence=(Evidence(metric, last[metric], f"below {MIN_STD} and a quarter of the first"),),
            )
    recent, earlier = history[-2:], [h["energy_auc"] for h in history[:-2] if "energy_auc" in h]
    # The mean of two neighbours, since a single good evaluation may be luck.
    best = max((0.5 * (a + b) for a, b in pairwise(earlier)), default=0.0)
    if best > LEARNT_AUC and all(_is_at_chance(h) for h in recent):
        return _alarm(
            "complete collapse",
            f"the energy no longer tells pairs that belong together from shuffled ones (AUC {last['energy_auc']:.2f}, "
            f"where 0.5 is chance, after {best:.2f}). Strengthen what keeps them apart, or lower optim.lr.",
            evidence=tuple(Evidence("energy_auc", h["energy_auc"], f"below {MIN_AUC} twice in a row") for h in recent),
        )
    return None


def _dimensional(history: Sequence[Numbers]) -> Verdict | None:
    first, last = history[0], history[-1]
    learnt = last.get("loss", math.inf) < next((h["loss"] for h in history if "loss" in h), -math.inf)
    for metric in ("embedding_rank_fraction", "dense_rank_fraction"):
        if metric not in last or metric not in first:
            continue
        value = last[metric]
        is_tiny = value < MIN_RANK_FRACTION and value < 0.5 * first[metric]
        if is_tiny or (learnt and value < LOW_RANK_FRACTION and value < LOW_FRACTION_OF_FIRST * first[metric]):
            why = f"below {MIN_RANK_FRACTION}" if is_tiny else f"below {LOW_RANK_FRACTION} and a third of the first"
            return _alarm(
                "dimensional collapse",
                f"the features use {value:.0%} of their dimensions ({first[metric]:.0%} at the first evaluation), "
                "while the loss looks fine. Add a decorrelating term, enlarge the batch, or weaken the augmentation.",
                evidence=(Evidence(metric, value, why),),
            )
    return None


def _teacher(history: Sequence[Numbers]) -> Verdict | None:
    last = history[-1]
    entropy, usage = last.get("teacher_entropy"), last.get("prototypes_used")
    if entropy is not None and entropy > MAX_ENTROPY:
        return _alarm(
            "uniform teacher",
            f"the teacher gives every prototype the same probability (entropy {entropy:.1%} of the largest), so there "
            "is nothing to learn. Lower the teacher's temperature, or slow its centre down.",
            evidence=(Evidence("teacher_entropy", entropy, f"above {MAX_ENTROPY}"),),
        )
    if usage is not None and usage < MIN_USAGE:
        return _alarm(
            "one prototype",
            f"nearly all samples go to one prototype (entropy of the mean {usage:.1%} of the largest), so the loss "
            "falls without learning. Strengthen centring or the equipartition constraint, or raise the teacher's "
            "temperature.",
            evidence=(Evidence("prototypes_used", usage, f"below {MIN_USAGE}"),),
        )
    return None


def _posterior(history: Sequence[Numbers]) -> Verdict | None:
    active = _unused(history, "active_units", minimum=MIN_ACTIVE)
    if active is None:
        return None
    return _alarm(
        "posterior collapse",
        f"{active:.0%} of the latent dimensions depend on the scan: the decoder ignores the code. Lower task.beta, or "
        "raise it slowly from 0.",
        evidence=(Evidence("active_units", active, f"below {MIN_ACTIVE} and not more than before"),),
    )


def _unused(history: Sequence[Numbers], metric: str, *, minimum: float) -> float | None:
    """The fraction in use if it is below `minimum` and not above all earlier ones; one that still grows is healthy."""
    fraction = history[-1].get(metric)
    before = max(h.get(metric, 0.0) for h in history[:-1])
    return fraction if fraction is not None and fraction < minimum and fraction <= before else None


def _dictionary(history: Sequence[Numbers]) -> Verdict | None:
    used = _unused(history, "used_atoms", minimum=MIN_ATOMS)
    if used is None:
        return None
    return _alarm(
        "dead dictionary",
        f"{used:.0%} of the atoms are used by any position of a batch, so the codes to predict are empty. Lower "
        "task.sparsity.",
        evidence=(Evidence("used_atoms", used, f"below {MIN_ATOMS} and not more than before"),),
    )


def _constant(history: Sequence[Numbers]) -> Verdict | None:
    """Over several evaluations together, since small batches give one evaluation few energies."""
    recent, last = history[-STUCK_EVALUATIONS:], history[-1]
    if len(history) <= STUCK_EVALUATIONS:
        return None
    trivial = all(h.get("loss_over_trivial", 0.0) >= TRIVIAL_FRACTION for h in recent)
    aucs = [h["energy_auc"] for h in recent if "energy_auc" in h]
    auc = sum(aucs) / len(aucs) if aucs else 0.5
    if aucs and sum(h.get("energy_pairs", 0.0) for h in recent) < MIN_PAIRS:
        return None
    at_chance = bool(aucs) and auc < MIN_AUC
    if not (at_chance or (trivial and auc < DOUBTFUL_AUC)):
        return None
    evidence, symptoms = [], []
    if aucs:
        symptoms.append(f"AUC {auc:.2f} on average, where 0.5 is chance")
        threshold = f"{auc:.2f} on average of {STUCK_EVALUATIONS} evaluations"
        evidence.append(Evidence("energy_auc", last["energy_auc"], threshold))
    if trivial:
        symptoms.append(f"a loss of {last['loss_over_trivial']:.2f} times the trivial one")
        threshold = f"above {TRIVIAL_FRACTION} {STUCK_EVALUATIONS} times"
        evidence.append(Evidence("loss_over_trivial", last["loss_over_trivial"], threshold))
    return _alarm(
        "constant answer",
        f"at {STUCK_EVALUATIONS} evaluations in a row the output hardly depends on the scan "
        f"({' and '.join(symptoms)}). Train longer if there were few steps; otherwise change optim.lr (lower if the "
        "loss jumps, higher if it stagnates), and look at the pictures: can the task be solved at all?",
        evidence=tuple(evidence),
    )


def _exploding(history: Sequence[Numbers]) -> Verdict | None:
    loss = history[-1].get("loss_over_trivial", 0.0)
    if loss <= MAX_LOSS:
        return None
    return _alarm(
        "diverging loss",
        f"the loss is {loss:.2g} times that of the trivial solution. Lower optim.lr, or clip gradients harder.",
        evidence=(Evidence("loss_over_trivial", loss, f"above {MAX_LOSS:.0f}"),),
    )


def _diverging(history: Sequence[Numbers]) -> Verdict | None:
    first, last = history[0], history[-1]
    for metric in ("dense_rms", "pooled_rms"):
        if metric in first and last.get(metric, 0.0) > MAX_GROWTH * first[metric] > 0:
            return _alarm(
                "diverging norm",
                f"features grew from {first[metric]:.2g} to {last[metric]:.2g}. Lower optim.lr, raise "
                "optim.weight_decay, or clip gradients harder.",
                evidence=(Evidence(metric, last[metric], f"above {MAX_GROWTH:.0f} times the first"),),
            )
    return None


def _loss_up(history: Sequence[Numbers]) -> Verdict | None:
    """A rising loss with rising rank is how predictive tasks look when they go well (ijepa issue 41)."""
    metric = "embedding_rank_fraction" if "embedding_rank_fraction" in history[-1] else "dense_rank_fraction"
    if not (_rose(history, "loss") and _rose(history, metric)):
        return None
    loss, rank = history[-1]["loss"], history[-1][metric]
    return Verdict(
        "loss up, rank up",
        alarm=False,
        sentence="the loss rises because the targets get richer, and so do the features. This is expected.",
        evidence=(Evidence("loss", loss, "rising"), Evidence(metric, rank, "rising")),
    )


# The first rule that applies gives the verdict: most serious first.
RULES: tuple[Callable[[Sequence[Numbers]], Verdict | None], ...] = (
    _exploding,
    _complete,
    _teacher,
    _posterior,
    _dictionary,
    _diverging,
    _dimensional,
    _constant,
    _loss_up,
)


def _is_at_chance(numbers: Numbers) -> bool:
    """Whether enough pairs show energies at chance level."""
    return numbers.get("energy_pairs", 0) >= MIN_PAIRS and numbers["energy_auc"] < MIN_AUC


def _rose(history: Sequence[Numbers], metric: str) -> bool:
    """Whether a metric rose at each of the last evaluations."""
    values = [h[metric] for h in history[-RISES - 1 :] if metric in h]
    return len(values) > RISES and all(b > a for a, b in pairwise(values))


def _alarm(name: VerdictName, sentence: str, *, evidence: tuple[Evidence, ...]) -> Verdict:
    return Verdict(name, alarm=True, sentence=sentence, evidence=evidence)


def _state(last: Numbers) -> str:
    clauses = []
    if "energy_auc" in last:
        clauses.append(f"right pairs have less energy than shuffled ones {last['energy_auc']:.0%} of the time")
    for metric, what in (("embedding_rank_fraction", "embeddings"), ("dense_rank_fraction", "dense features")):
        if metric in last:
            clauses.append(f"{what} use {last[metric]:.0%} of their dimensions")
    return f"{'; '.join(clauses)}." if clauses else "no rule found a failure."
