"""What `medssl pretrain --dry-run` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssl.config import PretrainConfig


def describe_pretraining(settings: PretrainConfig) -> None:
    """Print the resolved settings, and what a few steps say about the whole."""
    import typer

    from medssl.config import dump_config
    from medssl.training.rehearsal import rehearse

    typer.echo(dump_config(settings))
    seen = rehearse(settings)
    for name, why in seen.auto.items():
        typer.echo(f"{name} is auto: {why}")
    for name, shape in seen.views.items():
        typer.echo(f"view {name}: (B, C, D, H, W) = {shape}" if len(shape) == 5 else f"view {name}: {shape}")
    trivial = f", trivial {seen.trivial_loss:.4g}" if seen.trivial_loss else ""
    memory = f", peak GPU memory {seen.peak_gpu_gb:.1f} GB" if seen.peak_gpu_gb is not None else ""
    size = f"{seen.encoder} with {seen.parameters / 1e6:.2f} M parameters"
    typer.echo(f"{seen.scans} scans, patch (D, H, W) = {seen.patch}, {size}")
    typer.echo(f"first loss {seen.first_loss:.4g}{trivial}; {seen.seconds_per_step:.2f} s a step{memory}")
    typer.echo(f"{settings.loop.steps} steps would take about {seen.hours:.2f} h")
    typer.echo(f"a checkpoint would take about {seen.checkpoint_mb:.0f} MB")
