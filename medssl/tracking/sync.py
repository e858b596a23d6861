"""`medssl sync`: send to MLflow what a run folder has and MLflow lacks."""

from dataclasses import dataclass
from pathlib import Path

from medssl.config import TrackingConfig
from medssl.errors import MedsslError, TrackingError
from medssl.runs.run import Run


@dataclass(frozen=True)
class SyncReport:
    """sent: metric values and pictures that were missing. uri: the store that has them now."""

    sent: int
    mlflow_run_id: str
    uri: str


def sync(run_folder: Path, *, uri: str | None = None, pictures: str = "auto") -> SyncReport:
    """Replay a run; a second call sends nothing. uri: another store than the run's settings name.

    Raises UsageError when the folder is no run, TrackingError when the store cannot be written.
    """
    from medssl.tracking.replay import Replay

    run = Run.open(run_folder)
    settings = TrackingConfig.model_validate(run.config.get("tracking", {}))
    settings = settings.model_copy(
        update={"uri": uri or settings.uri, "pictures": pictures if pictures != "auto" else settings.pictures}
    )
    try:
        replay = Replay(run, settings)
        sent = replay.push() + replay.conclude()
    except MedsslError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy and requests share no base class
        raise TrackingError(
            f"The tracking store {settings.uri or 'of this workspace'} cannot be written ({type(error).__name__}). "
            "See that it is reachable and not locked, then call this again."
        ) from error
    return SyncReport(sent, replay.mlflow_run_id, replay.store.uri)
