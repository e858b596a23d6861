"""Checks of plugins, runs and a cohort."""

from pathlib import Path

from medssl.errors import MedsslError
from medssl_cli.checkup.result import Result, Targets

CLOSE = "Continue it with --resume, or close it with medssl doctor --fix."


def plugins(targets: Targets) -> list[Result]:
    """Load every announced task; report name clashes, failures, wrong names and unmet requirements."""
    from medssl.plugins import list_tasks

    entries = list_tasks()
    results = []
    for entry in entries:
        if entry.status == "clash":
            text = f"'{entry.name}' is provided by {entry.origin} and by another plugin"
            results.append(Result("plugins", "failed", text, "Uninstall one, or leave one out with --without-plugin."))
        elif entry.status == "off":
            text = f"'{entry.name}' of {entry.origin} is off"
            results.append(Result("plugins", "note", text, "Unset MEDSSL_PLUGINS."))
        else:
            results += _task(entry.name, entry.origin)
    results += unmet_requirements({entry.entry_point.dist.name for entry in entries if entry.entry_point.dist})
    if any(result.status == "failed" for result in results):
        return results
    names = ", ".join(entry.name for entry in entries if entry.status == "ok")
    return [*results, Result("plugins", "ok", f"{len(entries)} tasks load: {names}")]


def _task(name: str, origin: str) -> list[Result]:
    from medssl.plugins import load_task

    try:
        load_task(name)
    except MedsslError as error:
        fix = f"medssl plugins check {name}, or uninstall {origin.split()[0]}"
        return [Result("plugins", "failed", str(error), fix)]
    return []


def unmet_requirements(distributions: set[str]) -> list[Result]:
    """Plugins that require another version of medssl."""
    from importlib.metadata import requires, version

    from packaging.requirements import Requirement

    results = []
    for distribution in sorted(distributions - {"medssl"}):
        for requirement in map(Requirement, requires(distribution) or []):
            if requirement.name == "medssl" and not requirement.specifier.contains(version("medssl"), prereleases=True):
                text = f"{distribution} needs medssl{requirement.specifier}; {version('medssl')} is installed"
                results.append(Result("plugins", "failed", text, f"pip install --upgrade {distribution} medssl"))
    return results


def runs(targets: Targets) -> list[Result]:
    """Runs whose status is running but that have been silent for long; --fix closes them as killed."""
    from medssl.runs.run import Run

    n_readable, silent = 0, []
    for record in sorted(targets.out.glob("**/run.json")):
        try:
            run = Run.open(record.parent)
        except MedsslError as error:
            silent.append(Result("runs", "note", str(error)))
            continue
        n_readable += 1
        if run.silent_for_s is None:
            continue
        text = f"{record.parent} has the status running, but has been silent for {run.silent_for_s / 3600:.1f} h"
        silent.append(_closed(record.parent, text) if targets.fix else Result("runs", "note", text, CLOSE))
    return silent or [Result("runs", "ok", f"{n_readable} runs in {targets.out}, none of them lost")]


def _closed(folder: Path, text: str) -> Result:
    """Close a silent run, unless a process still writes it."""
    from medssl.runs.run import Run

    try:
        closed = Run.close_silent(folder)
    except MedsslError as error:
        return Result("runs", "note", str(error))
    return Result("runs", "ok", f"{text}; closed as killed" if closed else f"{folder} has gone on or ended meanwhile")


def cohort(targets: Targets) -> list[Result]:
    """Verify the checksum of every stored volume, and the permissions of the private folder."""
    from medssl.cohort.cohort import Cohort
    from medssl.store.volumes import verify_volume

    if targets.cohort is None:
        return []
    results = _private(targets.cohort / "private")
    try:
        opened = Cohort.open(targets.cohort)
    except MedsslError as error:
        return [*results, Result("cohort", "failed", str(error))]
    rows = opened.accepted()
    for row in rows:
        try:
            verify_volume(opened.store, row.scan_id)
        except MedsslError as error:
            results.append(Result("cohort", "failed", str(error), "Delete the volume and run medssl ingest again."))
    if any(result.status == "failed" for result in results):
        return results
    text = f"{len(rows)} scans of {len(opened.rows)} rows, every checksum correct"
    return [*results, Result("cohort", "ok", text)]


def _private(folder: Path) -> list[Result]:
    if folder.is_dir() and folder.stat().st_mode & 0o077:
        text = f"{folder} holds paths and identifiers of patients, but other users can read it"
        return [Result("cohort", "failed", text, f"chmod 700 {folder}")]
    return []
