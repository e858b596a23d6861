"""A new run folder: what must not be there yet, and what lies in it from the beginning."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl.errors import DataError, UsageError
from medssl.files import explain_write_errors, write_bytes
from medssl.runs.claim import CLAIM_FILE
from medssl.runs.paths import RunPaths
from medssl.runs.run_record import RunRecord, write_record


def lay_out(folder: Path, record: RunRecord, config: Mapping[str, Any]) -> None:
    """Write the files and folders that every run has from its beginning."""
    paths = RunPaths(folder)
    with explain_write_errors(folder):
        paths.checkpoints.mkdir()
        paths.pictures.mkdir()
    write_config(folder, config)
    # Last: a folder is a run once run.json is there.
    write_record(folder, record)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write FOLDER/config.yaml atomically."""
    import yaml

    settings = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
    write_bytes(RunPaths(folder).config, settings.encode())


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in FOLDER/config.yaml. Raises DataError."""
    import yaml

    path = RunPaths(folder).config
    try:
        return dict(yaml.safe_load(path.read_text()) or {})
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}). Restore it, or train the run again."
        ) from error


def refuse_occupied(folder: Path) -> None:
    """Raise UsageError where a new run would mix with what `folder` holds."""
    if folder.is_dir():
        names = [name for name in os.listdir(folder) if name != CLAIM_FILE]
        if not names:
            return
        what = "is already a run" if "run.json" in names else f"is not empty ({len(names)} entries)"
        raise UsageError(f"{folder} {what}. Choose another folder with --out, or continue a run with --resume.")
    if folder.exists():
        raise UsageError(f"{folder} is a file. Choose another folder with --out.")


def empty(folder: Path, *, keep: bool) -> None:
    """Take back a folder that could not be laid out; `keep` the folder itself where it was there before."""
    shutil.rmtree(folder, ignore_errors=True)
    if keep:
        folder.mkdir(exist_ok=True)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Only what JSON and YAML know, so that both files can be read anywhere; paths and dates become text."""
    return dict(json.loads(json.dumps(dict(values), default=str)))
