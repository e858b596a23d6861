"""`medssl sync`: send to MLflow what a run folder has and MLflow lacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medssl.config import TrackingConfig
from medssl.config.problems import without_password
from medssl.downstream.comparison import FILE_NAME
from medssl.errors import MedsslError, TrackingError
from medssl.runs.run import Run


@dataclass(frozen=True)
class SyncReport:
    """The outcome of a sync.

    Attributes:
        sent: Metric values and pictures that MLflow lacked.
        mlflow_run_id: Of the run, or of the parent run of a comparison.
        uri: The tracking store, without a password.
    """

    sent: int
    mlflow_run_id: str
    uri: str


def sync(run_folder: Path, *, uri: str | None = None, pictures: str = "auto") -> SyncReport:
    """Replay a run, or a label-efficiency folder with all its runs; a second call sends nothing.

    uri: another store than the run's settings name. Raises UsageError when the folder is neither, TrackingError when
    the store cannot be written.
    """
    if (run_folder / FILE_NAME).exists() and not (run_folder / "run.json").exists():
        return _sync_comparison(run_folder, uri=uri, pictures=pictures)
    run = Run.open(run_folder)
    settings = _settings(run, uri=uri, pictures=pictures)
    with _tracking_errors(settings):
        from medssl.tracking.replay import Replay

        replay = Replay(run, settings)
        sent = replay.push() + replay.conclude()
    return SyncReport(sent, replay.mlflow_run_id, without_password(replay.store.uri))


def _sync_comparison(folder: Path, *, uri: str | None, pictures: str) -> SyncReport:
    from medssl.tracking.parent_run import fine_tunings, push_comparison

    children = fine_tunings(folder)
    sent = sum(sync(child.folder, uri=uri, pictures=pictures).sent for child in children)
    settings = _settings(children[0], uri=uri, pictures=pictures)
    with _tracking_errors(settings):
        more, parent, store = push_comparison(folder, children, settings)
    return SyncReport(sent + more, parent, without_password(store.uri))


def _settings(run: Run, *, uri: str | None, pictures: str) -> TrackingConfig:
    settings = TrackingConfig.model_validate(run.config.get("tracking", {}))
    return settings.model_copy(
        update={"uri": uri or settings.uri, "pictures": pictures if pictures != "auto" else settings.pictures}
    )


@contextmanager
def _tracking_errors(settings: TrackingConfig) -> Iterator[None]:
    try:
        yield
    except MedsslError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy and requests share no base class
        store = without_password(settings.uri or "of this workspace")
        raise TrackingError(
            f"The tracking store {store} cannot be written ({type(error).__name__}). "
            "Check that it is reachable and not locked, then call this again."
        ) from error
