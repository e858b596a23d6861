"""Does pretraining help when labels are few? Fine-tune from several starts at several label counts, and compare on
the same scans.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.config import EncoderConfig, FinetuneConfig
from medssl.downstream.finetune import SCRATCH, finetune
from medssl.downstream.intervals import paired_interval
from medssl.encoders.encoder import EncoderDescription
from medssl.encoders.weights import read_description
from medssl.errors import ConfigError, DataError, UsageError
from medssl.runs.run import Run
from medssl.runs.writing import write_atomically
from medssl.training.pretrain import Observer, no_observer
from medssl.training.progress import Progress

FILE_NAME = "label_efficiency.json"


@dataclass(frozen=True)
class Score:
    """Dice of one test case after one fine-tuning.

    dice: class value to Dice; None where reference and prediction lack the class.
    """

    init: str
    labels: int
    seed: int
    case: str
    dice: Mapping[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """One start at one label count, against scratch with the same labels and seeds.

    Intervals are 95 %; those of scratch itself are None.
    """

    labels: int
    init: str
    mean: float
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    class_means: Mapping[str, float]


def label_efficiency(
    config: FinetuneConfig,
    inits: Mapping[str, str],
    labels: Sequence[int],
    seeds: int,
    out: Path,
    *,
    progress: Callable[[str], Progress],
    observe: Observer = no_observer,
) -> list[Comparison]:
    """Fine-tune every (start, label count, seed) under `out` and compare each start with scratch.

    inits: name to 'scratch' or a pretraining run; scratch is added when missing, with the network of the others in
    place of `config.encoder`: a gain shall be that of the weights. progress: makes what shows one fine-tuning, from its
    title. Runs that are finished are not repeated, one that was killed is continued, so calling this again completes
    what was interrupted. Writes label_efficiency.json, .md and .png to `out`. Raises UsageError where the pretrained
    networks differ.
    """
    starts = {SCRATCH: SCRATCH, **inits}
    config = config.model_copy(update={"encoder": shared_network(config.encoder, inits)})
    out.mkdir(parents=True, exist_ok=True)
    scores: list[Score] = []
    jobs = [(n, seed, name) for n in labels for seed in range(seeds) for name in starts]
    for number, (n, seed, name) in enumerate(jobs, start=1):
        title = f"[{number}/{len(jobs)}] {name}, {n} labels, seed {seed}"
        folder = out / "runs" / f"{name}-n{n}-s{seed}"
        job = config.model_copy(
            update={"init": starts[name], "labels": n, "loop": config.loop.model_copy(update={"seed": seed})}
        )
        scores += run_or_read(job, folder, name=name, progress=progress(title), observe=observe)
    comparisons = compare(scores)
    write_results(out, scores, comparisons)
    return comparisons


def shared_network(asked: EncoderConfig, inits: Mapping[str, str]) -> EncoderConfig:
    """The network that all pretrained starts have; as asked where there is none.

    Raises UsageError where they differ: one scratch cannot be held against both.
    """
    pretrained = {name: read_description(Path(run)) for name, run in inits.items() if run != SCRATCH}
    if not pretrained:
        return asked
    (first, network), *others = pretrained.items()
    for name, other in others:
        if other != network:
            raise UsageError(
                f"'{first}' and '{name}' are different networks ({difference(network, other)}), and scratch can be "
                "like one of them only. Compare them in two folders, or pretrain one of them anew with the other's "
                "encoder.name and encoder.options."
            )
    return asked.model_copy(update={"name": network.name, "options": dict(network.options)})


def difference(one: EncoderDescription, other: EncoderDescription) -> str:
    """The first thing in which two networks differ, such as 'filters [8, 16] and [8, 16, 32]'."""
    facts = [{"name": d.name, "in_channels": d.in_channels, **d.options} for d in (one, other)]
    name = next(name for name in {**facts[0], **facts[1]} if facts[0].get(name) != facts[1].get(name))
    return f"{name} {facts[0].get(name)} and {facts[1].get(name)}"


def run_or_read(
    config: FinetuneConfig, folder: Path, *, name: str, progress: Progress, observe: Observer
) -> list[Score]:
    """Scores of one fine-tuning, which is run, continued or only read, whichever is left to do.

    Raises ConfigError when `folder` holds a run with other settings, DataError when the test split has no labels.
    """
    results = folder / "evaluation.json"
    exists = (folder / "run.json").exists()
    if exists and Run.open(folder).config != config.model_dump(mode="json"):
        raise ConfigError(f"{folder} was made with other settings. Choose another --out, or remove the folder.")
    if not results.exists():
        finetune(config, folder, resume=exists, progress=progress, observe=observe)
    if not results.exists():
        raise DataError(
            "The split 'test' has no labelled scan, so nothing can be compared. "
            "Ingest more labelled scans, or give --splits."
        )
    cases = json.loads(results.read_text())["cases"]
    return [Score(name, int(config.labels), config.loop.seed, case["scan_id"], case["dice"]) for case in cases]


def compare(scores: Sequence[Score]) -> list[Comparison]:
    """Means and paired differences per label count and start; a case's score is the mean over its classes."""
    comparisons = []
    for labels in sorted({score.labels for score in scores}):
        scratch = score_table(scores, labels=labels, init=SCRATCH)
        for init in dict.fromkeys(score.init for score in scores):
            table = score_table(scores, labels=labels, init=init)
            mean = paired_interval(table)
            gain = paired_interval(table - scratch) if init != SCRATCH else None
            comparisons.append(
                Comparison(
                    labels=labels,
                    init=init,
                    mean=mean.mean,
                    low=mean.low,
                    high=mean.high,
                    difference=gain.mean if gain else None,
                    difference_low=gain.low if gain else None,
                    difference_high=gain.high if gain else None,
                    class_means=class_means(scores, labels=labels, init=init),
                )
            )
    return comparisons


def score_table(scores: Sequence[Score], *, labels: int, init: str) -> npt.NDArray[np.float64]:
    """(seeds, cases) mean Dice over classes, seeds and cases in sorted order; NaN where a case has no class at all."""
    chosen = {(s.seed, s.case): s.dice.values() for s in scores if s.labels == labels and s.init == init}
    seeds, cases = sorted({seed for seed, _ in chosen}), sorted({case for _, case in chosen})
    table = np.full((len(seeds), len(cases)), np.nan)
    for (seed, case), values in chosen.items():
        counted = [value for value in values if value is not None]
        if counted:
            table[seeds.index(seed), cases.index(case)] = np.mean(counted)
    return table


def class_means(scores: Sequence[Score], *, labels: int, init: str) -> dict[str, float]:
    """Mean Dice per class over seeds and cases: a class that was never learned shows here."""
    chosen = [s for s in scores if s.labels == labels and s.init == init]
    classes = list(chosen[0].dice)
    values = {c: [v for s in chosen if (v := s.dice[c]) is not None] for c in classes}
    return {c: float(np.mean(v)) if v else float("nan") for c, v in values.items()}


def write_results(out: Path, scores: Sequence[Score], comparisons: Sequence[Comparison]) -> None:
    """label_efficiency.json (all scores), .md (the table) and .png (Dice over labels)."""
    from medssl.downstream.label_plot import plot_comparisons

    content: dict[str, Any] = {"rows": [asdict(s) for s in scores], "summary": [asdict(c) for c in comparisons]}
    write_atomically(out / FILE_NAME, json.dumps(content, indent=1).encode())
    write_atomically(out / "label_efficiency.md", markdown_table(comparisons).encode())
    plot_comparisons(comparisons, out / "label_efficiency.png")


def markdown_table(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as a Markdown table, Dice in points of 100."""
    classes = list(comparisons[0].class_means)
    head = "| labels | start | Dice | 95 % | vs scratch | 95 % paired |" + "".join(f" class {c} |" for c in classes)
    lines = [head, "|" + " --- |" * (6 + len(classes))]
    for c in comparisons:
        gain = f"{100 * c.difference:+.1f}" if c.difference is not None else ""
        span = (
            f"{100 * c.difference_low:+.1f} to {100 * c.difference_high:+.1f}"
            if c.difference_low is not None and c.difference_high is not None
            else ""
        )
        per_class = "".join(f" {100 * c.class_means[k]:.1f} |" for k in classes)
        mean = f"{100 * c.mean:.1f} | {100 * c.low:.1f} to {100 * c.high:.1f}"
        lines.append(f"| {c.labels} | {c.init} | {mean} | {gain} | {span} |{per_class}")
    return "\n".join(lines) + "\n"
