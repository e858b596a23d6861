"""`medssl doctor`: whether this machine, the tracking store, the plugins and a cohort are as training needs them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medssl_cli.checkup.finding import Finding, Places

MARKS = {"ok": "✓", "note": "•", "failed": "✗"}


def doctor(
    out: Annotated[Path, typer.Option(help="Folder in which runs are written.")] = Path("runs"),
    cohort: Annotated[Path | None, typer.Option(help="Cohort whose every volume is checked, too.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="Tracking store; without one that of --out.")] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Put safe things right: close runs that died without a word.")
    ] = False,
    list_checks: Annotated[bool, typer.Option("--list", help="Name the checks and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine, the tracking store, the plugins and, where named, a cohort; say what to do about each cross.

    Exit code 1 where something fails. Example: medssl doctor --cohort cohort
    """
    from medssl_cli.checkup.finding import Places

    places = Places(out=out, cohort=cohort, tracking_uri=tracking_uri, fix=fix)
    checks = _checks()
    if list_checks:
        for name, check in checks.items():
            typer.echo(f"{name}: {(check.__doc__ or '').strip()}")
        return
    findings: list[Finding] = []
    for name, check in checks.items():
        found = _run(name, check, places)
        findings += found
        if not as_json:
            for finding in found:
                typer.echo(_line(finding))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    failed = sum(finding.status == "failed" for finding in findings)
    if not as_json:
        typer.echo("All is well." if not failed else f"{failed} of {len(findings)} need attention.")
    if failed:
        raise typer.Exit(1)


def _checks() -> "dict[str, Callable[[Places], list[Finding]]]":
    from medssl_cli.checkup import contents, machine, tracking

    return {
        "versions": machine.versions,
        "gpu": machine.accelerators,
        "codecs": machine.codecs,
        "disk": machine.disks,
        "tracking": tracking.tracking,
        "plugins": contents.plugins,
        "runs": contents.runs,
        "cohort": contents.cohort,
    }


def _run(name: str, check: "Callable[[Places], list[Finding]]", places: "Places") -> "list[Finding]":
    """A check that breaks is itself a finding: the others still run."""
    from medssl_cli.checkup.finding import Finding

    try:
        return check(places)
    except Exception as error:
        return [Finding(name, "failed", f"could not be checked ({type(error).__name__}: {error})")]


def _line(finding: "Finding") -> str:
    fix = f"\n    → {finding.fix}" if finding.fix else ""
    return f"{MARKS[finding.status]} {finding.check}: {finding.text}{fix}"
