"""run.json: what a run is and how it stands."""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from medssl.errors import DataError, UsageError
from medssl.files import write_bytes
from medssl.formats import check_format
from medssl.runs.paths import RunPaths

Kind = Literal["pretrain", "finetune", "label-efficiency"]
Status = Literal["running", "finished", "failed", "killed"]
KINDS: tuple[str, ...] = get_args(Kind)

FORMAT = 2


class RunRecord(BaseModel):
    """The content of run.json. Times are UTC.

    Attributes:
        format: Of run.json and config.yaml.
        id: Unique over all machines, and free of names.
        kind: Which command made the run.
        status: How it stands. A run that died without a word still says 'running'.
        reason: Why a run failed or was killed: the name of the error and its place in the code, never its message,
            because messages name files.
        started: When it was created.
        heartbeat: When the training last showed that it lives.
        finished: When it ended.
        resumes: The step of each resume.
        changes: For each resume with other settings its step and, as `before`, what stood in config.yaml.
        folder: Which folder wrote it, see `resuming.identity`.
        resumed_from: Id of the run of which this is a copy.
        versions: Releases of medssl, Python and the packages on which numbers may depend.
        code: Git commit of medssl's source, and whether it was changed since.
        metadata: What the command adds: task, data digest, verdict.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    format: int = FORMAT
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
    metadata: dict[str, Any] = {}


def write_record(folder: Path, record: RunRecord) -> None:
    """Write FOLDER/run.json atomically."""
    write_bytes(RunPaths(folder).record, f"{record.model_dump_json(indent=2)}\n".encode())


def read_record(folder: Path) -> RunRecord:
    """The record in FOLDER/run.json.

    Raises UsageError when the folder is not a run, DataError when the file is damaged or of another format.
    """
    path = RunPaths(folder).record
    try:
        content = json.loads(path.read_bytes())
        writer = content.get("versions", {}).get("medssl")
        check_format(path, content.get("format"), FORMAT, writer=writer, remedy="train again in a new folder")
        return RunRecord.model_validate(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "has no run.json, so it is not a run" if folder.is_dir() else "does not exist"
        raise UsageError(f"{folder} {what}. Give the folder of a run; `medssl runs` lists them.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check that you may read it.") from error
    except (ValueError, AttributeError, ValidationError) as error:
        raise DataError(f"{path} is damaged. Restore it, or train the run again.") from error


def make_id(kind: str, created: datetime) -> str:
    """A new id, unique over all machines and free of names."""
    return f"{created:%Y%m%d-%H%M%S}-{kind}-{secrets.token_hex(3)}"


def now() -> datetime:
    """UTC, to the millisecond."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
