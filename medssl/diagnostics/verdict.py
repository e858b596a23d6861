"""What the numbers mean, in words: the failure by name, with its evidence and the thresholds it was held against."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

VerdictName = Literal[
    "healthy",
    "first look",
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
# An energy that tells right from wrong pairs no better than a coin (design, reference/pretext_tasks.md section 6),
# twice running, after two looks together did better than LEARNT_AUC. At 32 pairs, AUC scatters by 0.07.
MIN_AUC, LEARNT_AUC, MIN_PAIRS = 0.55, 0.7, 32
# An answer that never depended on the input: pairs that nobody tells apart, or doubtfully so at the loss of the trivial
# solution. A training has about twenty looks: a slow start of a fifth of it is worth a word.
TRIVIAL_SHARE, DOUBTFUL_AUC, STUCK = 0.98, 0.6, 4
MAX_LOSS = 100.0
# Garrido et al. 2022 (RankMe); random features of an untrained encoder have the highest rank, so falling alone is no
# alarm: it must have fallen to a fifth of what is possible, and to a third of the first, for a loss that is lower now.
MIN_RANK_FRACTION, LOW_RANK_SHARE, LOW_OF_FIRST = 0.1, 0.2, 1 / 3
RISES = 3
# Caron et al. 2021 (DINO) and its issues: entropy of the teacher as a share of ln K, and of its mean over samples.
MAX_ENTROPY, MIN_USAGE = 0.99, 0.1
MIN_ACTIVE = 0.05
MIN_ATOMS = 0.05
MAX_GROWTH = 10.0


@dataclass(frozen=True)
class Evidence:
    """One number and what it was held against, e.g. ("energy_auc", 0.51, "below 0.55 twice running")."""

    metric: str
    value: float
    threshold: str


@dataclass(frozen=True)
class Verdict:
    """alarm: whether something is wrong. sentence: what, with its figures, and what to do."""

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

    Metrics that a task does not have are left out, and their rules with them. The first evaluation is only what later
    ones are held against: before training, nothing is a failure. A combined task's parts, whose metrics begin with
    `PART/`, are judged each by itself, and the verdict is the gravest; of the whole, only what all share is.
    """
    if len(history) < 2:
        return Verdict("first look", alarm=False, sentence="later evaluations are held against this one.")
    parts = sorted({metric.partition("/")[0] for metric in history[-1] if "/" in metric})
    own = {part: [_under(numbers, part) for numbers in history] for part in parts}
    shared = [_shared(numbers) for numbers in history] if parts else history
    for rule in RULES:
        for part, numbers in own.items():
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
    """What does not come from one part alone: the features, and the sum of the losses."""
    return {key: value for key, value in numbers.items() if key == "loss" or key.startswith(("dense_", "pooled_"))}


def _of_part(part: str, verdict: Verdict) -> Verdict:
    evidence = tuple(replace(one, metric=f"{part}/{one.metric}") for one in verdict.evidence)
    return replace(verdict, sentence=f"in {part}, {verdict.sentence}", evidence=evidence)


def _complete(history: Sequence[Numbers]) -> Verdict | None:
    first, last = history[0], history[-1]
    for metric in ("embedding_std", "dense_std"):
        if metric in first and metric in last and last[metric] < min(MIN_STD, MIN_STD_FRACTION * first[metric]):
            return _alarm(
                "complete collapse",
                f"all features are becoming one: their spread fell from {first[metric]:.3f} to {last[metric]:.3f} "
                "(1 is isotropic). Strengthen what keeps them apart (negatives, variance term, stop-gradient), or "
                "lower optim.lr.",
                evidence=(Evidence(metric, last[metric], f"below {MIN_STD} and a quarter of the first"),),
            )
    recent, known = history[-2:], [h["energy_auc"] for h in history[:-2] if "energy_auc" in h]
    best = max((0.5 * (one + next_) for one, next_ in pairwise(known)), default=0.0)  # one look's alone may be luck
    if best > LEARNT_AUC and all(_blind(h) for h in recent):
        return _alarm(
            "complete collapse",
            f"the energy no longer tells pairs that belong together from shuffled ones (AUC {last['energy_auc']:.2f}, "
            f"where 0.5 is chance, after {best:.2f}). Strengthen what keeps them apart, or lower optim.lr.",
            evidence=tuple(Evidence("energy_auc", h["energy_auc"], f"below {MIN_AUC} twice running") for h in recent),
        )
    return None


def _dimensional(history: Sequence[Numbers]) -> Verdict | None:
    first, last = history[0], history[-1]
    learnt = last.get("loss", math.inf) < next((h["loss"] for h in history if "loss" in h), -math.inf)
    for metric in ("embedding_rank_share", "dense_rank_share"):
        if metric not in last or metric not in first:
            continue
        value = last[metric]
        least = value < MIN_RANK_FRACTION and value < 0.5 * first[metric]
        if least or (learnt and value < LOW_RANK_SHARE and value < LOW_OF_FIRST * first[metric]):
            why = f"below {MIN_RANK_FRACTION}" if least else f"below {LOW_RANK_SHARE} and a third of the first"
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
            f"the teacher gives every prototype the same share (entropy {entropy:.1%} of the largest), so there is "
            "nothing to learn. Lower the teacher's temperature, or slow its centre down.",
            evidence=(Evidence("teacher_entropy", entropy, f"above {MAX_ENTROPY}"),),
        )
    if usage is not None and usage < MIN_USAGE:
        return _alarm(
            "one prototype",
            f"nearly all samples go to one prototype (entropy of the mean {usage:.1%} of the largest), so the loss "
            "falls for nothing. Strengthen centring or the equal-share constraint, or raise the teacher's temperature.",
            evidence=(Evidence("prototypes_used", usage, f"below {MIN_USAGE}"),),
        )
    return None


def _posterior(history: Sequence[Numbers]) -> Verdict | None:
    active = _asleep(history, "active_units", least=MIN_ACTIVE)
    if active is None:
        return None
    return _alarm(
        "posterior collapse",
        f"{active:.0%} of the latent numbers depend on the scan: the decoder ignores the code. Lower task.beta, or "
        "raise it slowly from 0.",
        evidence=(Evidence("active_units", active, f"below {MIN_ACTIVE} and not more than before"),),
    )


def _asleep(history: Sequence[Numbers], metric: str, *, least: float) -> float | None:
    """The share that is in use, where it is below `least` and not higher than ever, which is still waking up."""
    share = history[-1].get(metric)
    before = max(h.get(metric, 0.0) for h in history[:-1])
    return share if share is not None and share < least and share <= before else None


def _dictionary(history: Sequence[Numbers]) -> Verdict | None:
    used = _asleep(history, "used_atoms", least=MIN_ATOMS)
    if used is None:
        return None
    return _alarm(
        "dead dictionary",
        f"{used:.0%} of the atoms are used by any place of a batch, so the codes to predict are empty. Lower "
        "task.sparsity.",
        evidence=(Evidence("used_atoms", used, f"below {MIN_ATOMS} and not more than before"),),
    )


def _constant(history: Sequence[Numbers]) -> Verdict | None:
    """Over several looks together, since the energies of one are few in small batches."""
    recent, last = history[-STUCK:], history[-1]
    if len(history) <= STUCK:
        return None
    trivial = all(h.get("loss_over_trivial", 0.0) >= TRIVIAL_SHARE for h in recent)
    known = [h["energy_auc"] for h in recent if "energy_auc" in h]
    auc = sum(known) / len(known) if known else 0.5
    if known and sum(h.get("energy_pairs", 0.0) for h in recent) < MIN_PAIRS:
        return None
    blind = bool(known) and auc < MIN_AUC
    if not (blind or (trivial and auc < DOUBTFUL_AUC)):
        return None
    evidence = [Evidence("energy_auc", last["energy_auc"], f"{auc:.2f} on average of {STUCK} looks")] if known else []
    said = [f"AUC {auc:.2f} on average, where 0.5 is chance"] if known else []
    if trivial:
        said.append(f"a loss of {last['loss_over_trivial']:.2f} times the trivial one")
        evidence.append(
            Evidence("loss_over_trivial", last["loss_over_trivial"], f"above {TRIVIAL_SHARE} {STUCK} times")
        )
    return _alarm(
        "constant answer",
        f"at {STUCK} looks running the answer hardly depends on the scan ({' and '.join(said)}). Give it more steps if "
        "it has had few; else change optim.lr (lower if the loss jumps, higher if it stands still), and look at the "
        "pictures: can the task be solved at all?",
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
    metric = "embedding_rank_share" if "embedding_rank_share" in history[-1] else "dense_rank_share"
    if not (_rose(history, "loss") and _rose(history, metric)):
        return None
    loss, rank = history[-1]["loss"], history[-1][metric]
    return Verdict(
        "loss up, rank up",
        alarm=False,
        sentence="the loss rises because the targets get richer, and so do the features. This is no failure.",
        evidence=(Evidence("loss", loss, "rising"), Evidence(metric, rank, "rising")),
    )


# The first that applies is the verdict: the gravest first.
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


def _blind(numbers: Numbers) -> bool:
    """Whether enough pairs show an energy that is no better than a coin."""
    return numbers.get("energy_pairs", 0) >= MIN_PAIRS and numbers["energy_auc"] < MIN_AUC


def _rose(history: Sequence[Numbers], metric: str) -> bool:
    """Whether a metric rose at each of the last evaluations."""
    values = [h[metric] for h in history[-RISES - 1 :] if metric in h]
    return len(values) > RISES and all(b > a for a, b in pairwise(values))


def _alarm(name: VerdictName, sentence: str, *, evidence: tuple[Evidence, ...]) -> Verdict:
    return Verdict(name, alarm=True, sentence=sentence, evidence=evidence)


def _state(last: Numbers) -> str:
    words = []
    if "energy_auc" in last:
        words.append(f"right pairs have less energy than shuffled ones {last['energy_auc']:.0%} of the time")
    for metric, what in (("embedding_rank_share", "embeddings"), ("dense_rank_share", "features of places")):
        if metric in last:
            words.append(f"{what} use {last[metric]:.0%} of their dimensions")
    return f"{'; '.join(words)}." if words else "nothing speaks against it."
