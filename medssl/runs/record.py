"""run.json: what a run is and how it stands."""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from medssl.errors import DataError, UsageError
from medssl.files import write_bytes

Kind = Literal["pretrain", "finetune", "label-efficiency"]
Status = Literal["running", "finished", "failed", "killed"]
KINDS: tuple[str, ...] = get_args(Kind)
FILE_NAME = "run.json"


class RunRecord(BaseModel):
    """The content of run.json.

    Times are UTC. `heartbeat`: when the training last showed that it lives. `reason`: why a run failed or was killed,
    by the name of the error and its place in the code, never its message: messages name files. `resumes`: the step of
    each resume. `changes`: for each resume with other settings, its step and what stood in config.yaml `before`.
    `folder`: which folder wrote it, see `resuming.identity`. `resumed_from`: id of the run of which this is a copy.
    `facts`: what the command adds (task, data digest).
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    id: str
    kind: Kind
    status: Status
    reason: str | None = None
    started: datetime
    heartbeat: datetime
    finished: datetime | None = None
    resumes: list[int] = []
    changes: list[dict[str, Any]] = []
    folder: int | None = None
    resumed_from: str | None = None
    versions: dict[str, str] = {}
    code: dict[str, str | bool] = {}
    facts: dict[str, Any] = {}


def write_record(folder: Path, record: RunRecord) -> None:
    """Writes FOLDER/run.json atomically."""
    write_bytes(folder / FILE_NAME, f"{record.model_dump_json(indent=2)}\n".encode())


def read_record(folder: Path) -> RunRecord:
    """Reads FOLDER/run.json. UsageError when the folder is no run, DataError when the file is damaged."""
    path = folder / FILE_NAME
    try:
        return RunRecord.model_validate(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "has no run.json, so it is not a run" if folder.is_dir() else "does not exist"
        raise UsageError(f"{folder} {what}. Give the folder of a run; `medssl runs` lists them.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check that you may read it.") from error
    except (ValueError, ValidationError) as error:
        raise DataError(
            f"{path} is damaged or of another version of medssl. Restore it, or train the run again."
        ) from error


def make_id(kind: str, moment: datetime) -> str:
    """Unique over all machines, and free of names."""
    return f"{moment:%Y%m%d-%H%M%S}-{kind}-{secrets.token_hex(3)}"


def now() -> datetime:
    """UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
