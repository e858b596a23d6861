"""Where runs are mirrored to: a tracking server, or one SQLite file for a workspace."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medssl.config import TrackingConfig
from medssl.config.problems import without_password
from medssl.errors import TrackingError
from medssl.files import atomic_write, write_bytes

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
MAX_LEVELS = 3  # WORKSPACE/RUN, and WORKSPACE/EVIDENCE/runs/RUN


@dataclass(frozen=True)
class TrackingStore:
    """Where MLflow keeps runs.

    Attributes:
        uri: Of the database or server.
        artifacts: URI of the folder for files; None lets the server decide.
        local: Whether it lies on a disk of this machine.
    """

    uri: str
    artifacts: str | None
    local: bool


def tracking_store(run_folder: Path, settings: TrackingConfig) -> TrackingStore:
    """The store that `settings`, else MLFLOW_TRACKING_URI, names; else the SQLite file of the run's workspace.

    The workspace is the nearest folder above the run that has a database already, at most three levels up, else the
    run's parent. Raises TrackingError for a file store, which MLflow no longer takes.
    """
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        folder = workspace_of(run_folder)
        return TrackingStore(f"sqlite:///{folder / DATABASE}", (folder / ARTIFACTS).as_uri(), local=True)
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).absolute()
        return TrackingStore(f"sqlite:///{database}", (database.parent / ARTIFACTS).as_uri(), local=True)
    if "://" not in uri or uri.startswith("file:"):
        raise TrackingError(
            f"The tracking store {without_password(uri)} is a folder, which MLflow no longer writes. "
            "Use sqlite:///PATH/mlflow.db, or the address of a server."
        )
    return TrackingStore(uri, None, local=False)


def workspace_of(run_folder: Path) -> Path:
    """Folder whose database a run belongs to."""
    above = list(run_folder.absolute().parents)[:MAX_LEVELS]
    return next((folder for folder in above if (folder / DATABASE).exists()), above[0])


def make_database(store: TrackingStore) -> None:
    """Create the SQLite file where missing, under a lock: two processes that migrate one database at once break it.

    A migrated template lies in the user's cache, because MLflow's migrations take 5 to 12 seconds.
    """
    if not store.local:
        return
    database = Path(store.uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    with _lock(database.with_name(f".{DATABASE}.lock")):
        if not database.exists():
            write_bytes(database, _template().read_bytes(), error=TrackingError)


def _template() -> Path:
    import mlflow

    cache = Path(os.environ.get("MEDSSL_CACHE_DIR", "~/.cache/medssl")).expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    template = cache / f"mlflow-{mlflow.__version__}.db"
    with _lock(cache / ".template.lock"):
        if not template.exists():
            with atomic_write(template, error=TrackingError) as draft:
                _migrate(draft)
    return template


def _migrate(database: Path) -> None:
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{database}")
    _initialize_tables(engine)
    engine.dispose()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
