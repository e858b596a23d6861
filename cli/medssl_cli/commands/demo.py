"""`medssl demo`: the whole way on invented patients, with the library functions that the other commands call."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl.errors import UsageError
from medssl.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medssl.config import LoopConfig
    from medssl.downstream.comparison import Comparison

RECORD = "demo.json"
# The pseudonym key of the demo's cohort. It guards nobody, since the patients are invented; a fixed one makes the
# split, and with it every number of the demo, the same each time.
DEMO_KEY = "de" * 32


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does; the defaults take at most five minutes on two cores.

    shape: (X, Y, Z) of a scan; patch: (D, H, W). workers: of the ingest; None: as many as cores.
    """

    dicom_patients: int = 4
    nifti_cases: int = 24
    shape: tuple[int, int, int] = (48, 40, 36)
    patch: tuple[int, int, int] = (32, 32, 32)
    pretrain_steps: int = 300
    finetune_steps: int = 160
    labels: tuple[int, ...] = (2, 6)
    seeds: int = 2
    workers: int | None = None


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything the demo makes. Again to complete or show it.")
    ] = Path("demo"),
) -> None:
    """Invent an archive, ingest it, pretrain, fine-tune from scratch and from the pretrained encoder, and compare.

    Takes up to five minutes on two cores. Example: medssl demo --out demo
    """
    run_demo(out, DemoSize())


def run_demo(out: Path, size: DemoSize) -> Path:
    """Go the whole way in `out`, telling of each step; the path of the review page.

    What an earlier, interrupted call finished is not done again. Raises UsageError when `out` holds something else.
    """
    from medssl.config import TrackingConfig
    from medssl.tracking.review import write_review
    from medssl_cli.training import share_comparison

    started_s = time.monotonic()
    claim(out, size)
    typer.echo("1/4 an archive of invented patients")
    archive = write_archive(out / "archive", size)
    typer.echo("2/4 ingest: scans into a cohort")
    cohort = ingest_archive(archive, out / "cohort", key=out / "demo.key", workers=size.workers)
    typer.echo("3/4 pretrain: an encoder without labels")
    pretrained = pretrain_encoder(cohort, out / "pretrained", size)
    typer.echo(f"4/4 fine-tune: from scratch and from the encoder, {size.seeds} seeds each")
    comparisons = compare_starts(cohort, pretrained, out / "evidence", size)
    share_comparison(out / "evidence", TrackingConfig())
    page = write_review(out / "evidence")
    for line in summary(comparisons, seconds=time.monotonic() - started_s):
        typer.echo(line)
    typer.echo(f"review: {page}\nMLflow: medssl ui {out}")
    return page


def claim(out: Path, size: DemoSize) -> None:
    """Make `out` this demo's folder. Raises UsageError when it holds anything else."""
    record, asked = out / RECORD, json.loads(json.dumps(asdict(size)))
    if record.exists() and json.loads(record.read_text()) == asked:
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty and holds no such demo. Remove it, or choose another folder with --out.")
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(asked))


def write_archive(folder: Path, size: DemoSize) -> Path:
    """The archive, which appears under its name only when it is complete."""
    from medssl_phantoms import make_archive

    if not folder.exists():
        patients, cases = size.dicom_patients, size.nifti_cases
        with atomic_folder(folder) as draft:
            made = make_archive(draft, dicom_patients=patients, nifti_cases=cases, shape=size.shape)
        typer.echo(f"    {made.dicom_scans} scans as DICOM, {made.nifti_scans} as NIfTI with labels: {folder}")
    return folder


def ingest_archive(archive: Path, cohort: Path, *, key: Path, workers: int | None) -> Path:
    """The cohort of the archive's DICOM and NIfTI scans."""
    from medssl.ingestion.ingest import ingest
    from medssl.ingestion.settings import IngestSettings
    from medssl_cli.progress import LiveProgress

    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(DEMO_KEY + "\n")
    settings = IngestSettings(
        labels=archive / "labels", key_file=key, fractions=(0.7, 0.05, 0.25), modality="MR", workers=workers
    )
    with LiveProgress() as progress:
        report = ingest([archive / "dicom", archive / "images"], cohort, settings=settings, progress=progress)
    reasons = ", ".join(f"{code} {count}" for code, count in report.reasons.items())
    splits = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    typer.echo(f"    {report.n_scans} scans ({splits}), {report.n_labelled} of them labelled: {cohort}")
    typer.echo(f"    {report.n_rejected} left out, as they should be: {reasons}")
    return cohort


def pretrain_encoder(cohort: Path, run: Path, size: DemoSize) -> Path:
    """The run folder of a masked-volume pretraining on every training scan."""
    from medssl.config import PretrainConfig
    from medssl.training.pretrain import pretrain
    from medssl_cli.progress import TrainingProgress
    from medssl_cli.training import observer

    if (run / "encoder.safetensors").exists():
        return run
    config = PretrainConfig(
        cohort=cohort.absolute(),
        task={"name": "masked-volume"},
        patch=size.patch,
        loop=_loop(size.pretrain_steps),
    )
    progress = TrainingProgress(label="    masked-volume")
    return pretrain(config, run, resume=run.exists(), progress=progress, observe=observer(config.tracking))


def compare_starts(cohort: Path, pretrained: Path, out: Path, size: DemoSize) -> list[Comparison]:
    """Dice of fine-tunings from scratch and from the pretrained run, on the same test scans."""
    from medssl.config import FinetuneConfig
    from medssl.downstream.label_efficiency import label_efficiency
    from medssl_cli.progress import TrainingProgress
    from medssl_cli.training import observer

    config = FinetuneConfig(
        cohort=cohort.absolute(),
        init="scratch",
        patch=size.patch,
        loop=_loop(size.finetune_steps),
    )
    return label_efficiency(
        config,
        {"pretrained": str(pretrained.absolute())},
        size.labels,
        size.seeds,
        out,
        progress=lambda title: TrainingProgress(label=f"    {title}"),
        observe=observer(config.tracking, beside=out),
    )


def summary(comparisons: Sequence[Comparison], *, seconds: float) -> list[str]:
    """What came out, one line per label count and start; Dice in points of 100."""
    lines = [f"    {c.labels} labels, {c.init:10} Dice {100 * c.mean:5.1f}{_gain(c)}" for c in comparisons]
    minutes, rest = divmod(round(seconds), 60)
    return [*lines, f"done in {minutes} min {rest} s. Invented patients and few steps: it shows the way, not a result."]


def _gain(comparison: Comparison) -> str:
    if comparison.difference is None or comparison.difference_low is None or comparison.difference_high is None:
        return ""
    low, high = 100 * comparison.difference_low, 100 * comparison.difference_high
    return f", {100 * comparison.difference:+.1f} against scratch (95 % from {low:+.1f} to {high:+.1f})"


def _loop(steps: int) -> LoopConfig:
    from medssl.config import LoopConfig

    # Scans of this size are read in a millisecond; starting workers for each of nine trainings would take a minute.
    return LoopConfig(steps=steps, batch_size=2, workers=0, checkpoint_every=200)
