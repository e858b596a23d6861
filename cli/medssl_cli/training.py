"""What the training commands share: paths that must exist, continuing a run, and the mirror beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medssl.errors import UsageError

if TYPE_CHECKING:
    from medssl.config import TrackingConfig
    from medssl.training.pretrain import Observer


def resumed_files(out: Path, *, resume: bool) -> list[Path]:
    """The configuration that a run to continue was started with; nothing for a new run.

    Raises UsageError when there is no run to continue.
    """
    if not resume:
        return []
    config = out / "config.yaml"
    if not config.exists():
        raise UsageError(f"{out} holds no run to continue. Leave out --resume to start one.")
    return [config]


def check_paths(*folders: Path) -> None:
    """Raise UsageError for the first folder that was named and is not there."""
    missing = next((folder for folder in folders if not folder.exists()), None)
    if missing is not None:
        raise UsageError(f"{missing} does not exist. Check the path.")


def observer(settings: TrackingConfig, *, beside: Path | None = None) -> Observer:
    """Mirrors a run to MLflow while it trains, unless tracking is off.

    beside: the folder whose workspace the run belongs to, where that is not the run's own (the fine-tunings of a
    comparison).
    """
    from medssl.training.pretrain import no_observer

    if not settings.enabled:
        return no_observer
    from medssl.tracking.mirror import Mirror
    from medssl.tracking.workspace import tracking_store

    if beside is not None:
        settings = settings.model_copy(update={"uri": tracking_store(beside, settings).uri})
    return lambda run: Mirror(run, settings=settings)


def share_comparison(out: Path, settings: TrackingConfig) -> None:
    """Put a comparison into MLflow as the parent of its fine-tunings; what goes wrong is said, not fatal."""
    import typer

    from medssl.errors import TrackingError
    from medssl.tracking.sync import sync

    if not settings.enabled:
        return
    try:
        sync(out, uri=settings.uri)
    except TrackingError as error:
        typer.echo(f"{error} Then: medssl sync {out}", err=True)
