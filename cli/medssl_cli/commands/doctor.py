"""`medssl doctor`: checks of the machine, the tracking store, the plugins, the runs and a cohort."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl_cli.options import AsJson

if TYPE_CHECKING:
    from medssl_cli.checkup.result import Result, Targets

MARKS = {"ok": "✓", "note": "•", "failed": "✗"}


def doctor(
    out: Annotated[Path, typer.Option(help="Folder with runs.")] = Path("runs"),
    cohort: Annotated[Path | None, typer.Option(help="Cohort to check, with every volume.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="Tracking store; default: the store of --out.")] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Apply safe fixes: close runs that ended without a final status.")
    ] = False,
    list_checks: Annotated[bool, typer.Option("--list", help="List the checks and exit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the machine, the tracking store, the plugins and a cohort, and suggest a fix for each failed check.

    Exit code 1 if a check fails.

    Example: medssl doctor --cohort cohort
    """
    from medssl_cli.checkup.result import Targets

    targets = Targets(out=out, cohort=cohort, tracking_uri=tracking_uri, fix=fix)
    checks = _checks()
    if list_checks:
        for name, check in checks.items():
            typer.echo(f"{name}: {(check.__doc__ or '').strip()}")
        return
    results: list[Result] = []
    for name, check in checks.items():
        new_results = _run(name, check, targets)
        results += new_results
        if not as_json:
            for result in new_results:
                typer.echo(_line(result))
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2))
    failed = sum(result.status == "failed" for result in results)
    if not as_json:
        typer.echo(f"{failed} of {len(results)} checks need attention." if failed else "All checks passed.")
    if failed:
        raise typer.Exit(1)


def _checks() -> "dict[str, Callable[[Targets], list[Result]]]":
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


def _run(name: str, check: "Callable[[Targets], list[Result]]", targets: "Targets") -> "list[Result]":
    """Results of a check. A check that raises counts as failed, so that the others still run."""
    from medssl_cli.checkup.result import Result

    try:
        return check(targets)
    except Exception as error:
        return [Result(name, "failed", f"could not be checked ({type(error).__name__}: {error})")]


def _line(result: "Result") -> str:
    fix = f"\n    → {result.fix}" if result.fix else ""
    return f"{MARKS[result.status]} {result.check}: {result.text}{fix}"
