"""`medssl score`: scans of a cohort ranked by pretext loss."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medssl_cli.options import PluginFiles

if TYPE_CHECKING:
    from medssl.downstream.score import ScanEnergy


def score(
    run: Annotated[Path, typer.Option(help="Run folder of `medssl pretrain`.")],
    cohort: Annotated[Path, typer.Option(help="Cohort made by `medssl ingest`; it may differ from that of the run.")],
    regions: Annotated[int, typer.Option(min=1, max=1000, help="Regions to read per scan.")] = 4,
    top: Annotated[int, typer.Option(min=1, help="Number of scans to show.")] = 20,
    out: Annotated[Path | None, typer.Option(help="CSV file for the whole ranking.")] = None,
    plugin_files: PluginFiles = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with every scan.")] = False,
) -> None:
    """Rank scans by pretext loss ("energy"), outliers first: wrong modality, cut field of view, artefacts, blank scans.

    Example: medssl score --run runs/masked --cohort cohort --top 10
    """
    from medssl.downstream.score import NOTHING_TO_SCORE, OUTLIER_Z, score_scans
    from medssl.files import prepare_new_file
    from medssl_cli.progress import LiveProgress

    if out is not None:
        prepare_new_file(out)
    with LiveProgress() as live:
        scans = score_scans(run, cohort, regions=regions, plugin_files=plugin_files or [], progress=live)
    if out is not None:
        _write(scans, out)
    if as_json:
        typer.echo(json.dumps([scan.as_dict() for scan in scans], indent=1))
        return
    typer.echo(f"{'scan':<24} {'modality':<9} {'energy':>10} {'robust z':>9} {'valid':>7}  direction")
    for scan in scans[:top]:
        typer.echo(_line(scan))
    outliers = sum(scan.is_outlier for scan in scans)
    empty = sum(scan.direction == NOTHING_TO_SCORE for scan in scans)
    typer.echo(
        f"{outliers} of {len(scans)} scans deserve a look: {outliers - empty} lie {OUTLIER_Z:.0f} robust standard "
        f"deviations or more from the median, in {empty} there is nothing to score."
    )
    if out is not None:
        typer.echo(f"Ranking: {out}")


def _line(scan: "ScanEnergy") -> str:
    energy = "" if scan.energy is None else f"{scan.energy:.4g}"
    robust_z = "" if scan.robust_z is None else f"{scan.robust_z:.2f}"
    mark = "  <- look" if scan.is_outlier else ""
    return (
        f"{scan.scan_id:<24} {scan.modality or '':<9} {energy:>10} {robust_z:>9} {scan.valid_fraction:>7.0%}  "
        f"{scan.direction}{mark}"
    )


def _write(scans: "list[ScanEnergy]", out: Path) -> None:
    import csv
    import io

    from medssl.files import write_bytes

    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, fieldnames=list(scans[0].as_dict()))
    rows.writeheader()
    rows.writerows(scan.as_dict() for scan in scans)
    write_bytes(out, text.getvalue().encode())
