"""Check of the tracking store: a round trip with one run, and the schema of its database."""

import math
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl_cli.checkup.result import Result, Targets

if TYPE_CHECKING:
    from medssl.tracking.workspace import TrackingStore

EXPERIMENT = "medssl doctor"


def tracking(targets: Targets) -> list[Result]:
    """MLflow round trip: one run is written, read back and deleted, in a temporary store if none exists yet."""
    from medssl.config import TrackingConfig
    from medssl.config.problems import without_password
    from medssl.tracking.workspace import tracking_store

    store = tracking_store(targets.out / "run", TrackingConfig(uri=targets.tracking_uri))
    with tempfile.TemporaryDirectory(prefix="medssl-doctor-") as folder:
        fresh = tracking_store(Path(folder) / "run", TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))
        if store.local and not _database(store).exists():
            return [_round_trip(fresh, f"MLflow works; {store.uri} will be made by the first run")]
        results = _schema(store, fresh) if store.local else []
        return results or [_round_trip(store, without_password(store.uri))]


def _round_trip(store: "TrackingStore", text: str) -> Result:
    from medssl.config.problems import without_password
    from medssl.tracking.client import connect, experiment_id

    try:
        client = connect(store)
        run = client.create_run(experiment_id(client, EXPERIMENT, store)).info.run_id
        client.log_metric(run, "check", math.pi)
        read = client.get_run(run).data.metrics.get("check")
        client.delete_run(run)
    except Exception as error:  # MLflow, SQLAlchemy and requests share no base class
        problem = f"{store.uri} cannot be written and read ({type(error).__name__}: {str(error).splitlines()[0]})"
        fix = "Start the server, or name another store with tracking.uri."
        return Result("tracking", "failed", without_password(problem), fix)
    if read is None or not math.isclose(read, math.pi):
        text = f"{without_password(store.uri)} returned {read} for {math.pi}"
        return Result("tracking", "failed", text, "Name another tracking.uri.")
    return Result("tracking", "ok", f"{text}: one run written, read back and deleted")


def _schema(store: "TrackingStore", fresh: "TrackingStore") -> list[Result]:
    """A failed result if another version of MLflow made the database."""
    from medssl.tracking.client import quiet_mlflow
    from medssl.tracking.workspace import make_database

    quiet_mlflow()
    make_database(fresh)
    try:
        version, expected = _version(_database(store)), _version(_database(fresh))
    except sqlite3.DatabaseError as error:
        text = f"{_database(store)} is not a tracking database ({error})"
        return [Result("tracking", "failed", text, "Move it away, then upload the runs again: medssl sync RUN")]
    if version != expected:
        text = f"{_database(store)} has the schema of another MLflow ({version}, expected {expected})"
        return [Result("tracking", "failed", text, f"Copy the file, then: mlflow db upgrade {store.uri}")]
    return []


def _version(database: Path) -> Any:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def _database(store: "TrackingStore") -> Path:
    return Path(store.uri.removeprefix("sqlite:///"))
