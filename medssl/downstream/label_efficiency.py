"""Does pretraining help when labels are few? Fine-tune from several starts at several label counts, and compare on
the same scans.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medssl.cohort.cohort import Cohort
from medssl.config import EncoderConfig, FinetuneConfig
from medssl.downstream.comparison import Comparison, Score, compare
from medssl.downstream.evaluate import read_cases
from medssl.downstream.finetune import SCRATCH, finetune
from medssl.downstream.labelled import check_comparable
from medssl.encoders.encoder import EncoderDescription
from medssl.encoders.weights import load_encoder, read_description, weights_digest
from medssl.errors import ConfigError, DataError, UsageError
from medssl.files import check_folder_creatable, write_bytes
from medssl.progress import Progress
from medssl.runs.run import Run
from medssl.training.pretrain import Observer, no_observer

FILE_NAME, EVALUATION = "label_efficiency.json", "evaluation.json"


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
    networks differ, ConfigError where `out` has runs with other settings, of other scans or from other weights, and
    what `planned_jobs` finds; nothing is written then.
    """
    check_folder_creatable(out / "runs")
    starts = {SCRATCH: SCRATCH, **inits}
    config = config.model_copy(update={"encoder": shared_network(config.encoder, inits)})
    jobs = planned_jobs(config, starts, labels=labels, seeds=seeds, out=out)
    refuse_changed(jobs)
    scores: list[Score] = []
    for number, job in enumerate(jobs, start=1):
        title = f"[{number}/{len(jobs)}] {job.name}, {job.config.num_labelled} labels, seed {job.config.loop.seed}"
        scores += run_or_read(job, progress=progress(title), observe=observe)
    comparisons = compare(scores)
    write_results(out, scores, comparisons)
    return comparisons


@dataclass(frozen=True)
class Job:
    """One fine-tuning of a comparison, and what it must have been made from.

    cohort_digest: of the scans and labels. init_digest: of the weights it starts from; None from scratch.
    """

    name: str
    config: FinetuneConfig
    folder: Path
    cohort_digest: str
    init_digest: str | None


def planned_jobs(
    config: FinetuneConfig, starts: Mapping[str, str], *, labels: Sequence[int], seeds: int, out: Path
) -> list[Job]:
    """Every fine-tuning of a comparison in the order in which they run.

    Raises DataError, ConfigError and CheckpointError now rather than after hours of training: for a cohort without test
    scans or with fewer labelled ones than asked for, and for weights that cannot be read.
    """
    cohort = Cohort.open(config.cohort)
    check_comparable(cohort, num_labelled=max(labels))
    pretrained = {name: Path(start) for name, start in starts.items() if start != SCRATCH}
    for folder in pretrained.values():
        load_encoder(folder)
    digests = {name: weights_digest(folder) for name, folder in pretrained.items()}
    return [
        Job(
            name=name,
            config=config.model_copy(
                update={"init": start, "num_labelled": n, "loop": config.loop.model_copy(update={"seed": seed})}
            ),
            folder=out / "runs" / f"{name}-n{n}-s{seed}",
            cohort_digest=cohort.digest,
            init_digest=digests.get(name),
        )
        for n in labels
        for seed in range(seeds)
        for name, start in starts.items()
    ]


def refuse_changed(jobs: Sequence[Job]) -> None:
    """Raise ConfigError when runs that are there were made with other settings, scans or weights than `jobs` ask for:
    one table must not mix them.
    """
    found = [(job.folder, why) for job in jobs if (why := what_changed(job))]
    if found:
        (folder, why), *others = found
        rest = f" Nor do these fit: {', '.join(other.name for other, _ in others)}." if others else ""
        them = "these folders" if others else "the folder"
        raise ConfigError(f"{folder} {why}.{rest} Choose another --out, or remove {them}.")


def what_changed(job: Job) -> str | None:
    """In what the run that is in the folder of a job differs from it; None where it does not, or there is no run."""
    if not (job.folder / "run.json").exists():
        return None
    run = Run.open(job.folder)
    if run.config != job.config.model_dump(mode="json"):
        return "was made with other settings"
    if run.metadata.get("cohort_digest") != job.cohort_digest:
        return f"was made when {job.config.cohort} held other scans or labels"
    if job.init_digest and "init_digest" not in run.metadata:
        return "was made by an earlier medssl and does not say which weights it started from"
    if run.metadata.get("init_digest") != job.init_digest:
        return f"started from other weights than {job.config.init} holds now"
    return None


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


def run_or_read(job: Job, *, progress: Progress, observe: Observer) -> list[Score]:
    """Scores of one fine-tuning, which is run, continued, scored anew or only read, whichever is left to do.

    Raises ConfigError when scans or weights changed meanwhile.
    """
    cases = read_cases(job.folder / EVALUATION)
    if cases is None:
        finetune(job.config, job.folder, resume=(job.folder / "run.json").exists(), progress=progress, observe=observe)
        refuse_changed([job])
        cases = read_cases(job.folder / EVALUATION)
    if cases is None:
        raise DataError(f"{job.folder} was trained, but not scored. Remove the folder, and call this again.")
    labels, seed = int(job.config.num_labelled), job.config.loop.seed
    return [
        Score(job.name, labels, seed, case["scan_id"], case["dice"], tuple(map(str, case["false_alarms"])))
        for case in cases
    ]


def write_results(out: Path, scores: Sequence[Score], comparisons: Sequence[Comparison]) -> None:
    """label_efficiency.json (all scores), .md (the table) and .png (Dice over labels)."""
    from medssl.downstream.label_plot import plot_comparisons

    content: dict[str, Any] = {"rows": [asdict(s) for s in scores], "summary": [asdict(c) for c in comparisons]}
    write_bytes(out / FILE_NAME, json.dumps(content, indent=1, allow_nan=False).encode())
    write_bytes(out / "label_efficiency.md", markdown_table(comparisons).encode())
    plot_comparisons(comparisons, out / "label_efficiency.png")


def markdown_table(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as a Markdown table, Dice in points of 100, and below it what counts."""
    classes, has_empty = list(comparisons[0].class_means), any(c.empty for c in comparisons)
    alarms = " false alarms |" if has_empty else ""
    head = "| labels | start | Dice | 95 % | vs scratch | 95 % paired |" + "".join(f" class {c} |" for c in classes)
    lines = [head + alarms, "|" + " --- |" * (6 + len(classes) + has_empty)]
    for c in comparisons:
        gain = f"{100 * c.difference:+.1f}" if c.difference is not None else ""
        span = (
            f"{100 * c.difference_low:+.1f} to {100 * c.difference_high:+.1f}"
            if c.difference_low is not None and c.difference_high is not None
            else ""
        )
        means = [c.class_means[k] for k in classes]
        per_class = "".join(" none |" if mean is None else f" {100 * mean:.1f} |" for mean in means)
        mean = f"{100 * c.mean:.1f} | {100 * c.low:.1f} to {100 * c.high:.1f}"
        counted = f" {c.false_alarms} of {c.empty} |" if has_empty else ""
        lines.append(f"| {c.labels} | {c.init} | {mean} | {gain} | {span} |{per_class}{counted}")
    return "\n".join([*lines, "", caption(comparisons)]) + "\n"


def caption(comparisons: Sequence[Comparison]) -> str:
    """What the figures of a table are about."""
    said = ["Dice in points of 100. A class counts in the scans whose reference has it, for every start alike."]
    absent = [name for name, mean in comparisons[0].class_means.items() if mean is None]
    said += [f"Class {name} is in no test scan." for name in absent]
    if any(c.empty for c in comparisons):
        said.append(
            "False alarms: how often a class was predicted in a scan whose reference lacks it, of how many such "
            "classes, scans and seeds; Dice does not see them."
        )
    return " ".join(said)
