"""Every pretext task on the hippocampus benchmark: the same budget of pretraining, then 5 labelled scans, 3 seeds.

    python benchmarks/label_efficiency.py --out /tmp/evidence      # first: makes the cohort
    python benchmarks/every_task.py --out /tmp/evidence --jobs 2

Writes benchmarks/label_efficiency/every_task.md: Dice beside scratch with the same labels, and seconds of pretraining.
Calling it again completes what was interrupted.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from command import medssl

from medssl.downstream.comparison import SCRATCH, Comparison, ComparisonRow, percent, points, span

HERE = Path(__file__).resolve().parent
SETTINGS = HERE / "label_efficiency"
NUM_LABELLED, SEEDS = 5, 3
# Half of the benchmark's steps: there are 66 trainings, and tasks are compared with each other only.
FINETUNING_STEPS = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the working folder of label_efficiency.py")
    parser.add_argument("--tasks", nargs="+", help="only these; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side, with one thread each if several")
    arguments = parser.parse_args()
    out: Path = arguments.out
    tasks = arguments.tasks or installed_tasks()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        seconds = dict(zip(tasks, pool.map(lambda task: pretrain(out, task, arguments.jobs), tasks), strict=True))
        finetune(out, tasks[:1], arguments.jobs)  # scratch too, which the groups then only read
        groups = [tasks[first :: arguments.jobs] for first in range(arguments.jobs)]
        list(pool.map(lambda group: finetune(out, group, arguments.jobs), groups))
    finetune(out, tasks, arguments.jobs)  # all are finished: reads them and compares
    (SETTINGS / "every_task.md").write_text(markdown(Comparison.read(out / "every_task"), seconds))


def installed_tasks() -> list[str]:
    """Names of the tasks that `medssl plugins list` shows."""
    listed = json.loads(medssl("plugins", "list", "--json", reads=True))
    return sorted(plugin["name"] for plugin in listed if plugin["kind"] == "task" and plugin["status"] == "ok")


def pretrain(out: Path, task: str, jobs: int) -> float:
    """Seconds that pretraining took; it is not repeated."""
    folder = out / "every_task" / "pretrained" / task
    took = folder / "seconds.txt"
    if not (folder / "encoder.json").exists():
        started = time.monotonic()
        medssl(
            "pretrain", "--cohort", out / "cohort", "--task", task, "--config", SETTINGS / "every_task.yaml",
            "--out", folder, *(["--resume"] if (folder / "run.json").exists() else []), threads=one_each(jobs),
        )  # fmt: skip
        took.write_text(f"{time.monotonic() - started:.0f}")
    return float(took.read_text()) if took.exists() else float("nan")


def finetune(out: Path, tasks: Sequence[str], jobs: int) -> None:
    """Fine-tune from scratch and from these tasks; finished runs are only read."""
    inits = [part for t in tasks for part in ("--init", f"{t}={out / 'every_task' / 'pretrained' / t}")]
    medssl(
        "label-efficiency", "--cohort", out / "cohort", *inits,
        "--config", SETTINGS / "finetune.yaml", "--steps", FINETUNING_STEPS,
        "--num-labelled", NUM_LABELLED, "--seeds", SEEDS, "--out", out / "every_task", threads=one_each(jobs),
    )  # fmt: skip


def one_each(jobs: int) -> int:
    """Threads of a training: one where several run side by side, else all."""
    return 1 if jobs > 1 else 0


def markdown(comparison: Comparison, seconds: dict[str, float]) -> str:
    """One line per task, the best gain first."""
    scratch = next(row for row in comparison.rows if not row.gain)
    pretrained = [(row, row.gain) for row in comparison.rows if row.gain]
    lines = [
        "| init | Dice (%) | 95 % interval | gain (points) | 95 % interval | pretraining (s) |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| {SCRATCH} | {interval(scratch)} | | | |",
    ]
    for row, gain in sorted(pretrained, key=lambda pair: -pair[1].mean):
        gained = f"{points(gain.mean)} | {span(gain)}"
        lines.append(f"| {row.init} | {interval(row)} | {gained} | {seconds[row.init]:.0f} |")
    return "\n".join(lines) + "\n"


def interval(row: ComparisonRow) -> str:
    """Dice and its interval as two cells."""
    return f"{percent(row.dice.mean)} | {percent(row.dice.low)} to {percent(row.dice.high)}"


if __name__ == "__main__":
    main()
