"""Parts of the training commands: checks of paths, and the configuration of a run to continue."""

from pathlib import Path

from medssl.errors import UsageError


def config_of_resumed(out: Path, *, resume: bool) -> list[Path]:
    """Configuration file of the run to continue; none for a new run. Raises UsageError if `out` holds no run."""
    if not resume:
        return []
    from medssl.runs.paths import RunPaths
    from medssl.runs.run_record import read_record

    config = RunPaths(out).config
    if not config.exists():
        raise UsageError(f"There is no run to continue in {out}. Leave out --resume to start one.")
    read_record(out)  # refuses another format before its settings are read
    return [config]


def check_paths(*folders: Path) -> None:
    """Raise UsageError for the first folder that does not exist."""
    missing = next((folder for folder in folders if not folder.exists()), None)
    if missing is not None:
        raise UsageError(f"{missing} does not exist. Check the path.")
