"""The mirror beside a training, switched on or off by the settings of tracking."""

from collections.abc import Callable
from pathlib import Path

from medssl.config import TrackingConfig
from medssl.errors import TrackingError
from medssl.runs.observer import Observer, no_observer


def mirror_runs(settings: TrackingConfig, *, beside: Path | None = None) -> Observer:
    """What a training starts beside itself: the mirror in MLflow, or nothing where tracking is off.

    Args:
        settings: of the training.
        beside: folder whose tracking store the run uses instead of its own, for the fine-tunings of a comparison.
    """
    if not settings.enabled:
        return no_observer
    from medssl.tracking.mirror import Mirror
    from medssl.tracking.workspace import tracking_store

    if beside is not None:
        settings = settings.model_copy(update={"uri": tracking_store(beside, settings).uri})
    return lambda run: Mirror(run, settings=settings)


def send_comparison(folder: Path, settings: TrackingConfig, *, warn: Callable[[str], None]) -> None:
    """Send a comparison to MLflow as the parent of its fine-tunings.

    Args:
        folder: of the comparison.
        settings: of the fine-tunings.
        warn: receives the error and the command that sends it later; nothing is raised.
    """
    if not settings.enabled:
        return
    from medssl.tracking.sync import sync

    try:
        sync(folder, uri=settings.uri)
    except TrackingError as error:
        warn(f"{error} Then: medssl sync {folder}")
