"""The output of `medssl pretrain --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssl.config import PretrainConfig


def describe_pretraining(settings: PretrainConfig) -> None:
    """Print the resolved settings, and estimates from a few timed steps."""
    import typer

    from medssl.config import dump_config
    from medssl.training.rehearsal import rehearse

    typer.echo(dump_config(settings))
    rehearsal = rehearse(settings)
    for name, reason in rehearsal.auto.items():
        typer.echo(f"{name} is auto: {reason}")
    for name, shape in rehearsal.views.items():
        typer.echo(f"view {name}: (B, C, D, H, W) = {shape}" if len(shape) == 5 else f"view {name}: {shape}")
    trivial = f", trivial {rehearsal.trivial_loss:.4g}" if rehearsal.trivial_loss else ""
    memory = f", peak GPU memory {rehearsal.peak_gpu_gb:.1f} GB" if rehearsal.peak_gpu_gb is not None else ""
    size = f"{rehearsal.encoder} with {rehearsal.parameters / 1e6:.2f} M parameters"
    typer.echo(f"{rehearsal.scans} scans, patch (D, H, W) = {rehearsal.patch}, {size}")
    typer.echo(f"first loss {rehearsal.first_loss:.4g}{trivial}; {rehearsal.seconds_per_step:.2f} s a step{memory}")
    typer.echo(f"{settings.loop.steps} steps would take about {rehearsal.hours:.2f} h")
    typer.echo(f"a checkpoint would take about {rehearsal.checkpoint_mb:.0f} MB")
