"""Parts of the training commands: checks of paths, the configuration of a run to continue, and the MLflow mirror."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medssl.errors import UsageError

if TYPE_CHECKING:
    from medssl.config import TrackingConfig
    from medssl.training.pretrain import Observer


def config_of_resumed(out: Path, *, resume: bool) -> list[Path]:
    """Configuration file of the run to continue; none for a new run. Raises UsageError if `out` holds no run."""
    if not resume:
        return []
    from medssl.runs.layout import upgrade_config
    from medssl.runs.paths import RunPaths

    config = RunPaths(out).config
    if not config.exists():
        raise UsageError(f"There is no run to continue in {out}. Leave out --resume to start one.")
    upgrade_config(out)
    return [config]


def check_paths(*folders: Path) -> None:
    """Raise UsageError for the first folder that does not exist."""
    missing = next((folder for folder in folders if not folder.exists()), None)
    if missing is not None:
        raise UsageError(f"{missing} does not exist. Check the path.")


def observer(settings: TrackingConfig, *, beside: Path | None = None) -> Observer:
    """The mirror to MLflow that runs beside a training; an observer that does nothing if tracking is off.

    Args:
        settings: the run's tracking settings.
        beside: folder whose tracking store the run uses instead of its own, for the fine-tunings of a comparison.
    """
    from medssl.training.pretrain import no_observer

    if not settings.enabled:
        return no_observer
    from medssl.tracking.mirror import Mirror
    from medssl.tracking.workspace import tracking_store

    if beside is not None:
        settings = settings.model_copy(update={"uri": tracking_store(beside, settings).uri})
    return lambda run: Mirror(run, settings=settings)


def send_comparison(out: Path, settings: TrackingConfig) -> None:
    """Send a comparison to MLflow as the parent of its fine-tunings. A tracking error is printed and not raised."""
    import typer

    from medssl.errors import TrackingError
    from medssl.tracking.sync import sync

    if not settings.enabled:
        return
    try:
        sync(out, uri=settings.uri)
    except TrackingError as error:
        typer.echo(f"{error} Then: medssl sync {out}", err=True)
