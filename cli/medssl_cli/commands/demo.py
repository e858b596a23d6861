"""`medssl demo`: from archive to review page on synthetic patients, with the functions of the other commands."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl.errors import UsageError
from medssl.files import atomic_folder

if TYPE_CHECKING:
    from medssl.config import LoopConfig
    from medssl.downstream.comparison import Comparison, ComparisonRow

RECORD = "demo.json"
# Pseudonym key of the demo's cohort. The patients are synthetic, so it need not be secret; a fixed key gives the same
# split and the same results each time.
DEMO_KEY = "de" * 32


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does. The defaults take at most five minutes on two cores.

    Attributes:
        dicom_patients: patients with CT and MR series as DICOM.
        nifti_cases: labelled MR scans as NIfTI.
        shape: (X, Y, Z) of a scan in voxels.
        patch: (D, H, W) in voxels.
        pretrain_steps: optimiser steps of the pretraining.
        finetune_steps: optimiser steps of each fine-tuning.
        labels: numbers of labelled scans to compare.
        seeds: fine-tunings of each number and initialisation.
        workers: processes of the ingest; None means one per core.
    """

    dicom_patients: int = 4
    nifti_cases: int = 24
    shape: tuple[int, int, int] = (48, 40, 36)
    patch: tuple[int, int, int] = (32, 32, 32)
    pretrain_steps: int = 300
    finetune_steps: int = 160
    num_labelled: tuple[int, ...] = (2, 6)
    seeds: int = 2
    workers: int | None = None


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything the demo writes. Name it again to complete a demo.")
    ] = Path("demo"),
) -> None:
    """Generate an archive, ingest it, pretrain, fine-tune from scratch and from the pretrained encoder, and compare.

    Takes up to five minutes on two cores.

    Example: medssl demo --out demo
    """
    run_demo(out, DemoSize())


def run_demo(out: Path, size: DemoSize) -> Path:
    """Run the demo in `out`, announce each stage, and return the path of the review page.

    Stages that an interrupted call finished are not repeated. Raises UsageError if `out` holds something else.
    """
    started_s = time.monotonic()
    claim(out, size)
    typer.echo("1/4 an archive of synthetic patients")
    archive = write_archive(out / "archive", size)
    typer.echo("2/4 ingest: scans into a cohort")
    cohort = ingest_archive(archive, out / "cohort", key=out / "demo.key", workers=size.workers)
    typer.echo("3/4 pretrain: an encoder without labels")
    pretrained = pretrain_encoder(cohort, out / "pretrained", size)
    typer.echo(f"4/4 fine-tune: from scratch and from the encoder, {size.seeds} seeds each")
    comparison = compare_inits(cohort, pretrained, out / "evidence", size)
    page = out / "evidence" / "review.html"
    for line in result_lines(comparison, seconds=time.monotonic() - started_s):
        typer.echo(line)
    typer.echo(f"review: {page}\nMLflow: medssl ui {out}")
    return page


def claim(out: Path, size: DemoSize) -> None:
    """Make `out` the folder of this demo. Raises UsageError if it holds anything else."""
    record, content = out / RECORD, json.loads(json.dumps(asdict(size)))
    if record.exists() and json.loads(record.read_text()) == content:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} is not empty and does not hold this demo. Remove it, or choose another folder with --out."
        )
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(content))


def write_archive(folder: Path, size: DemoSize) -> Path:
    """The archive, written under a temporary name until it is complete."""
    from medssl_phantoms import make_archive

    if not folder.exists():
        patients, cases = size.dicom_patients, size.nifti_cases
        with atomic_folder(folder) as draft:
            summary = make_archive(draft, dicom_patients=patients, nifti_cases=cases, shape=size.shape)
        typer.echo(f"    {summary.dicom_scans} scans as DICOM, {summary.nifti_scans} as NIfTI with labels: {folder}")
    return folder


def ingest_archive(archive: Path, cohort: Path, *, key: Path, workers: int | None) -> Path:
    """The cohort of the archive's DICOM and NIfTI scans."""
    from medssl.ingestion.archive_to_cohort import ingest
    from medssl.ingestion.settings import IngestSettings
    from medssl_cli.progress import LiveProgress

    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(DEMO_KEY + "\n")
    settings = IngestSettings(
        label_dir=archive / "labels", key_file=key, fractions=(0.7, 0.05, 0.25), modality="MR", workers=workers
    )
    with LiveProgress() as progress:
        report = ingest([archive / "dicom", archive / "images"], cohort, settings=settings, progress=progress)
    reasons = ", ".join(f"{code} {count}" for code, count in report.reasons.items())
    splits = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    typer.echo(f"    {report.n_scans} scans ({splits}), {report.n_labelled} of them labelled: {cohort}")
    typer.echo(f"    {report.n_rejected} left out, as intended: {reasons}")
    return cohort


def pretrain_encoder(cohort: Path, run: Path, size: DemoSize) -> Path:
    """Run folder of a masked-volume pretraining on every training scan."""
    from medssl.api import pretrain
    from medssl.config import PretrainConfig
    from medssl_cli.progress import TrainingProgress

    if (run / "encoder.safetensors").exists():
        return run
    config = PretrainConfig(
        cohort=cohort.absolute(), task={"name": "masked-volume"}, patch=size.patch, loop=_loop(size.pretrain_steps)
    )
    progress = TrainingProgress(label="    masked-volume")
    return pretrain(config, run, resume=run.exists(), progress=progress).folder


def compare_inits(cohort: Path, pretrained: Path, out: Path, size: DemoSize) -> Comparison:
    """Dice of fine-tunings from scratch and from the pretrained run, on the same test scans."""
    from medssl.api import label_efficiency
    from medssl.config import FinetuneConfig
    from medssl_cli.progress import TrainingProgress

    config = FinetuneConfig(cohort=cohort.absolute(), init="scratch", patch=size.patch, loop=_loop(size.finetune_steps))
    return label_efficiency(
        config,
        out,
        inits={"pretrained": pretrained.absolute()},
        num_labelled=size.num_labelled,
        seeds=size.seeds,
        progress=lambda title: TrainingProgress(label=f"    {title}"),
        warn=partial(typer.echo, err=True),
    )


def result_lines(comparison: Comparison, *, seconds: float) -> list[str]:
    """One line per number of labelled scans and init; Dice in percent, gains in Dice points."""
    from medssl.downstream.comparison import percent

    lines = [
        f"    {row.num_labelled} labelled scans, {row.init:10} Dice {percent(row.dice.mean):>5} %{_gain(row)}"
        for row in comparison.rows
    ]
    minutes, remaining_s = divmod(round(seconds), 60)
    return [
        *lines,
        f"done in {minutes} min {remaining_s} s. Synthetic patients, few steps: this shows the pipeline, not a result.",
    ]


def _gain(row: ComparisonRow) -> str:
    from medssl.downstream.comparison import points, span

    return f", {points(row.gain.mean)} points against scratch (95 % interval {span(row.gain)})" if row.gain else ""


def _loop(steps: int) -> LoopConfig:
    from medssl.config import LoopConfig

    # Scans of this size load in a millisecond; starting workers for each of the nine trainings would take a minute.
    return LoopConfig(steps=steps, batch_size=2, workers=0, checkpoint_every=200)
