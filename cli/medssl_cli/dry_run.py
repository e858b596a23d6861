"""The output of `medssl pretrain --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssl.config import PretrainConfig


def describe_pretraining(settings: PretrainConfig) -> None:
    """Print the resolved settings, and estimates from a few timed steps."""
    import typer

    from medssl.config import dump_config
    from medssl.training.trial import dry_run

    typer.echo(dump_config(settings))
    trial = dry_run(settings)
    for name, reason in trial.auto.items():
        typer.echo(f"{name} is auto: {reason}")
    for name, shape in trial.views.items():
        typer.echo(f"view {name}: (B, C, D, H, W) = {shape}" if len(shape) == 5 else f"view {name}: {shape}")
    trivial = f", trivial {trial.trivial_loss:.4g}" if trial.trivial_loss else ""
    memory = f", peak GPU memory {trial.peak_gpu_gb:.1f} GB" if trial.peak_gpu_gb is not None else ""
    size = f"{trial.encoder} with {trial.parameters / 1e6:.2f} M parameters"
    typer.echo(f"{trial.scans} scans, patch (D, H, W) = {trial.patch}, {size}")
    typer.echo(f"first loss {trial.first_loss:.4g}{trivial}; {trial.seconds_per_step:.2f} s a step{memory}")
    typer.echo(f"{settings.loop.steps} steps would take about {trial.hours:.2f} h")
    typer.echo(f"a checkpoint would take about {trial.checkpoint_mb:.0f} MB")
