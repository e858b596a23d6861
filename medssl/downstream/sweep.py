"""Label efficiency: fine-tune from every init with every number of labelled scans, and compare on the same scans."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.cohort.cohort import Cohort
from medssl.config import EncoderConfig, FinetuneConfig, as_config
from medssl.downstream.comparison import SCRATCH, Comparison, Score, compare
from medssl.downstream.dice import read_evaluation
from medssl.downstream.finetuning import finetune
from medssl.downstream.labelled import check_comparable
from medssl.encoders.encoder import EncoderDescription
from medssl.encoders.weights import load_encoder, read_description, weights_digest
from medssl.errors import ConfigError, DataError, UsageError
from medssl.files import check_folder_creatable, write_bytes
from medssl.progress import Progress, Silent
from medssl.runs.observer import Observer, no_observer
from medssl.runs.run import Run


def label_efficiency(
    config: FinetuneConfig | Mapping[str, Any],
    out: str | Path,
    *,
    inits: Mapping[str, str | Path],
    num_labelled: Sequence[int],
    seeds: int = 3,
    progress: Callable[[str], Progress] | None = None,
    observe: Observer = no_observer,
) -> Comparison:
    """Fine-tune every (init, number of labelled scans, seed) below `out` and compare each init with scratch.

    Finished fine-tunings are not repeated and one that was killed is continued, so the same call again completes what
    was interrupted. Writes label_efficiency.json, .md and .png to `out`.

    Args:
        config: Settings of the fine-tunings, or a mapping of setting to value such as {"cohort": "cohort",
            "loop.steps": 500}. `init`, `num_labelled` and `loop.seed` vary and need not be given. The encoder of
            scratch is that of the pretrainings, in place of `config.encoder`: a gain shall be that of the weights.
        out: Folder for the runs and the results.
        inits: Name to the folder of a pretraining, or to "scratch", which is added where it is missing.
        num_labelled: Numbers of labelled training scans.
        seeds: Repetitions, each with other labelled scans and new weights. With fewer than 6 the intervals are too
            narrow.
        progress: Makes what shows one fine-tuning, from its title; silent by default.
        observe: Context manager around each fine-tuning, such as the MLflow mirror.

    Raises:
        UsageError: The pretrained networks differ.
        ConfigError: A setting is wrong, there are too few labelled scans, or `out` has runs with other settings, of
            other scans or from other weights. Nothing is written then.
        DataError: The test split has no labelled scan.
        CheckpointError: Pretrained weights cannot be read.
    """
    if not isinstance(config, FinetuneConfig):
        config = as_config(FinetuneConfig, {"init": SCRATCH, **config})
    out, runs = Path(out), {SCRATCH: SCRATCH, **{name: str(run) for name, run in inits.items()}}
    check_folder_creatable(out / "runs")
    config = config.model_copy(update={"encoder": shared_network(config.encoder, runs)})
    jobs = planned_jobs(config, runs, num_labelled=num_labelled, seeds=seeds, out=out)
    refuse_changed(jobs)
    scores: list[Score] = []
    for number, job in enumerate(jobs, start=1):
        title = (
            f"[{number}/{len(jobs)}] {job.init}, {job.config.num_labelled} labelled scans, seed {job.config.loop.seed}"
        )
        scores += run_or_read(job, progress=progress(title) if progress else Silent(), observe=observe)
    comparison = compare(scores)
    write_results(out, comparison)
    return comparison


@dataclass(frozen=True)
class Job:
    """One fine-tuning of a comparison, and what it must have been made from.

    Attributes:
        init: Name of the initialisation.
        config: Settings, with init, number of labelled scans and seed filled in.
        folder: The run.
        cohort_digest: Of the scans and labels.
        init_digest: Of the weights that it starts from; None from scratch.
    """

    init: str
    config: FinetuneConfig
    folder: Path
    cohort_digest: str
    init_digest: str | None


def planned_jobs(
    config: FinetuneConfig, inits: Mapping[str, str], *, num_labelled: Sequence[int], seeds: int, out: Path
) -> list[Job]:
    """Every fine-tuning of a comparison in the order in which they run.

    Raises now rather than after hours of training: DataError for a cohort without labelled test scans, ConfigError for
    too few labelled training scans, CheckpointError for weights that cannot be read.
    """
    cohort = Cohort.open(config.cohort)
    check_comparable(cohort, num_labelled=max(num_labelled))
    pretrained = {name: Path(run) for name, run in inits.items() if run != SCRATCH}
    for folder in pretrained.values():
        load_encoder(folder)
    digests = {name: weights_digest(folder) for name, folder in pretrained.items()}
    return [
        Job(
            init=name,
            config=config.model_copy(
                update={"init": run, "num_labelled": n, "loop": config.loop.model_copy(update={"seed": seed})}
            ),
            folder=out / "runs" / f"{name}-n{n}-s{seed}",
            cohort_digest=cohort.digest,
            init_digest=digests.get(name),
        )
        for n in num_labelled
        for seed in range(seeds)
        for name, run in inits.items()
    ]


def refuse_changed(jobs: Sequence[Job]) -> None:
    """Raise ConfigError where finished runs were made with other settings, scans or weights than `jobs` ask for: one
    table must not mix them.
    """
    changed = [(job.folder, why) for job in jobs if (why := what_changed(job))]
    if changed:
        (folder, why), *more = changed
        also = f" Nor do these fit: {', '.join(other.name for other, _ in more)}." if more else ""
        these = "these folders" if more else "the folder"
        raise ConfigError(f"{folder} {why}.{also} Choose another --out, or remove {these}.")


def what_changed(job: Job) -> str | None:
    """How the run in the folder of a job differs from the job; None where it does not, or where there is no run."""
    if not (job.folder / "run.json").exists():
        return None
    run = Run.open(job.folder)
    if run.config != job.config.model_dump(mode="json"):
        return "was made with other settings"
    if run.metadata.get("cohort_digest") != job.cohort_digest:
        return f"was made when {job.config.cohort} held other scans or labels"
    if run.metadata.get("init_digest") != job.init_digest:
        return f"started from other weights than {job.config.init} holds now"
    return None


def shared_network(configured: EncoderConfig, inits: Mapping[str, str]) -> EncoderConfig:
    """The network that all pretrained inits have; as configured where there are none.

    Raises UsageError where they differ: one scratch cannot be compared with two networks.
    """
    pretrained = {name: read_description(Path(run)) for name, run in inits.items() if run != SCRATCH}
    if not pretrained:
        return configured
    (first, network), *others = pretrained.items()
    for name, other in others:
        if other != network:
            raise UsageError(
                f"'{first}' and '{name}' are different networks ({difference(network, other)}), and scratch can have "
                "only one of them. Compare them in two folders, or pretrain one of them again with the other's "
                "encoder.name and encoder.options."
            )
    return configured.model_copy(update={"name": network.name, "options": dict(network.options)})


def difference(first: EncoderDescription, second: EncoderDescription) -> str:
    """The first setting in which two networks differ, such as 'filters [8, 16] and [8, 16, 32]'."""
    left, right = ({"name": d.name, "in_channels": d.in_channels, **d.options} for d in (first, second))
    key = next(key for key in {**left, **right} if left.get(key) != right.get(key))
    return f"{key} {left.get(key)} and {right.get(key)}"


def run_or_read(job: Job, *, progress: Progress, observe: Observer) -> list[Score]:
    """Scores of one fine-tuning, which is run, continued, scored again or only read, whichever is left to do.

    Raises ConfigError where scans or weights changed meanwhile.
    """
    evaluation = read_evaluation(job.folder)
    if evaluation is None:
        resume = (job.folder / "run.json").exists()
        finetune(job.config, job.folder, resume=resume, progress=progress, observe=observe)
        # Scans or weights may have been replaced during the hours since the first check.
        refuse_changed([job])
        evaluation = read_evaluation(job.folder)
    if evaluation is None:
        raise DataError(f"{job.folder} was trained, but not scored. Remove the folder, and call this again.")
    num_labelled, seed = int(job.config.num_labelled), job.config.loop.seed
    return [Score(job.init, num_labelled, seed, case) for case in evaluation.cases]


def write_results(out: Path, comparison: Comparison) -> None:
    """label_efficiency.json (everything), .md (the table) and .png (Dice over the number of labelled scans)."""
    from medssl.downstream.label_plot import plot_comparison

    comparison.write(out)
    write_bytes(out / "label_efficiency.md", comparison.as_markdown().encode())
    plot_comparison(comparison, out / "label_efficiency.png")
