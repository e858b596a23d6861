"""Plugins, runs and the cohort."""

from pathlib import Path

from medssl.errors import MedsslError
from medssl_cli.checkup.finding import Finding, Places

CLOSE = "Continue it with --resume, or close it with medssl doctor --fix."


def plugins(places: Places) -> list[Finding]:
    """Every announced task is loaded; clashes, failures, other names and unmet requirements are told."""
    from medssl.plugins import list_tasks

    entries = list_tasks()
    findings = []
    for entry in entries:
        if entry.status == "clash":
            text = f"'{entry.name}' is provided by {entry.origin} and by another plugin"
            findings.append(
                Finding("plugins", "failed", text, "Uninstall one, or leave one out with --without-plugin.")
            )
        elif entry.status == "off":
            findings.append(
                Finding("plugins", "note", f"'{entry.name}' of {entry.origin} is off", "Unset MEDSSL_PLUGINS.")
            )
        else:
            findings += _task(entry.name, entry.origin)
    findings += unmet_requirements({entry.entry_point.dist.name for entry in entries if entry.entry_point.dist})
    if any(finding.status == "failed" for finding in findings):
        return findings
    names = ", ".join(entry.name for entry in entries if entry.status == "ok")
    return [*findings, Finding("plugins", "ok", f"{len(entries)} tasks load: {names}")]


def _task(name: str, origin: str) -> list[Finding]:
    from medssl.plugins import load_task

    try:
        load_task(name)
    except MedsslError as error:
        return [
            Finding("plugins", "failed", str(error), f"medssl plugins check {name}, or uninstall {origin.split()[0]}")
        ]
    return []


def unmet_requirements(distributions: set[str]) -> list[Finding]:
    """Plugins that ask for another version of medssl."""
    from importlib.metadata import requires, version

    from packaging.requirements import Requirement

    findings = []
    for distribution in sorted(distributions - {"medssl"}):
        for requirement in map(Requirement, requires(distribution) or []):
            if requirement.name == "medssl" and not requirement.specifier.contains(version("medssl"), prereleases=True):
                text = f"{distribution} needs medssl{requirement.specifier}; {version('medssl')} is installed"
                findings.append(Finding("plugins", "failed", text, f"pip install --upgrade {distribution} medssl"))
    return findings


def runs(places: Places) -> list[Finding]:
    """Runs that say they are running and have long been silent; --fix closes them as killed."""
    from medssl.runs.run import Run

    found, silent = 0, []
    for record in sorted(places.out.glob("**/run.json")):
        try:
            run = Run.open(record.parent)
        except MedsslError as error:
            silent.append(Finding("runs", "note", str(error)))
            continue
        found += 1
        if run.silent_for_s is None:
            continue
        text = f"{record.parent} says it is running, but has been silent for {run.silent_for_s / 3600:.1f} h"
        silent.append(_closed(record.parent, text) if places.fix else Finding("runs", "note", text, CLOSE))
    return silent or [Finding("runs", "ok", f"{found} runs in {places.out}, none of them lost")]


def _closed(folder: Path, text: str) -> Finding:
    """Close a silent run, unless a process holds it after all."""
    from medssl.runs.run import Run

    try:
        closed = Run.close_silent(folder)
    except MedsslError as error:
        return Finding("runs", "note", str(error))
    return Finding("runs", "ok", f"{text}; closed as killed" if closed else f"{folder} has gone on or ended meanwhile")


def cohort(places: Places) -> list[Finding]:
    """Every volume of the store against its checksum, and the private folder's permissions."""
    from medssl.cohort.cohort import Cohort
    from medssl.store.volumes import verify_volume

    if places.cohort is None:
        return []
    findings = _private(places.cohort / "private")
    try:
        opened = Cohort.open(places.cohort)
    except MedsslError as error:
        return [*findings, Finding("cohort", "failed", str(error))]
    rows = opened.accepted()
    for row in rows:
        try:
            verify_volume(opened.store, row.scan_id)
        except MedsslError as error:
            findings.append(Finding("cohort", "failed", str(error), "Delete the volume and run medssl ingest again."))
    if any(finding.status == "failed" for finding in findings):
        return findings
    return [*findings, Finding("cohort", "ok", f"{len(rows)} scans of {len(opened.rows)} rows, every checksum right")]


def _private(folder: Path) -> list[Finding]:
    if folder.is_dir() and folder.stat().st_mode & 0o077:
        text = f"{folder} holds paths and identifiers of patients, and others may read it"
        return [Finding("cohort", "failed", text, f"chmod 700 {folder}")]
    return []
