"""The review page: one HTML file for deciding whether an encoder learned, and whether it helps.

It contains its pictures, charts and script and fetches nothing, so that it opens from a disk, in MLflow's sandboxed
frame and years later.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from medssl.downstream.comparison import FILE_NAME, SCRATCH, Comparison
from medssl.errors import UsageError
from medssl.files import write_bytes
from medssl.runs.picture_files import Picture
from medssl.runs.run import Run
from medssl.tracking.answer import read_answer
from medssl.tracking.charts import curves, dice_over_labels
from medssl.tracking.conclusion import cautions, conclusion

PAGE = "review.html"
MAX_PICTURES = 12  # of one sheet, evenly spaced over the steps
MAX_RUNS_SHOWN = 6


def write_review(folder: Path) -> Path:
    """Write FOLDER/review.html for a run or a label-efficiency folder and return its path.

    Raises UsageError when the folder is neither, DataError when something in it is damaged.
    """
    if (folder / FILE_NAME).exists():
        body = "".join(_comparison_sections(folder))
    elif (folder / "run.json").exists():
        body = "".join(_run_sections(Run.open(folder)))
    else:
        raise UsageError(f"{folder} is neither a run nor a label-efficiency folder. `medssl runs` lists runs.")
    template = Template(files("medssl.tracking").joinpath("review_page.html").read_text())
    page = template.substitute(title=escape(folder.name), body=body)
    path = folder / PAGE
    write_bytes(path, page.encode())
    return path


def _comparison_sections(folder: Path) -> Iterator[str]:
    comparison = Comparison.read(folder)
    yield f'<p class="verdict">{escape(conclusion(comparison))}</p>'
    yield f"<p>{comparison.num_cases} test scans, {comparison.num_seeds} seeds.</p>"
    answer = {key.replace("_", " "): str(value) for key, value in read_answer(folder).items()}
    yield _section("Review", _definitions(answer) if answer else "")
    yield _section("Dice over the number of labelled scans", dice_over_labels(comparison) + _table(comparison))
    yield _section("Cautions", _list(cautions(comparison)) or "<p>None by the rules of docs/review.md.</p>")
    runs = [Run.open(path.parent) for path in sorted((folder / "runs").glob("*/run.json"))]
    losses = {run.folder.name: _series(run, "train/loss") for run in _examples(runs)}
    yield _section("Training loss of one fine-tuning per init", curves("train/loss", losses))
    for run in _examples(runs):
        yield _section(f"Predictions: {run.folder.name}", _pictures(run.pictures()))
    if runs:
        yield _section("Metadata", _metadata(runs[0]))


def _examples(runs: Sequence[Run]) -> list[Run]:
    """The first fine-tuning of each init with the fewest labelled scans, where the init matters most.

    Scratch comes first, as in the table, so that it has the same colour in both charts.
    """

    def order(run: Run) -> tuple[int, bool, str]:
        return int(run.config.get("num_labelled", 0)), run.config.get("init") != SCRATCH, run.folder.name

    first: dict[str, Run] = {}
    for run in sorted(runs, key=order):
        first.setdefault(run.folder.name.rsplit("-n", 1)[0], run)
    return list(first.values())[:MAX_RUNS_SHOWN]


def _run_sections(run: Run) -> Iterator[str]:
    yield f'<p class="verdict">{escape(_status(run))}</p>'
    lines = run.metrics()
    keys = dict.fromkeys(key for line in lines for key in line if key not in ("step", "time"))
    charts = [curves(key, {key: _series(run, key)}) for key in keys if not key.startswith("test/")]
    scores = {key: line[key] for line in lines for key in keys if key.startswith("test/") and key in line}
    if scores:
        yield _section("Scores", _definitions({key: f"{value:.3f}" for key, value in scores.items()}))
    yield _section("Pictures", _pictures(run.pictures()))
    yield _section("Curves", f'<div class="charts">{"".join(charts)}</div>')
    yield _section("Metadata", _metadata(run))


def _status(run: Run) -> str:
    record = run.record
    if run.silent_for_s:
        return f"Status 'running', but silent for {run.silent_for_s / 3600:.1f} h: the run was probably killed."
    health = f" {run.metadata['health']}" if "health" in run.metadata else ""
    reason = f" ({record.reason})" if record.reason else ""
    return f"{record.kind}: {record.status}{reason}.{health}"


def _series(run: Run, key: str) -> list[tuple[float, float]]:
    return [(float(line["step"]), float(line[key])) for line in run.metrics() if key in line]


def _table(comparison: Comparison) -> str:
    header, *lines = comparison.table()
    rows = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>"]
    for row, cells in zip(comparison.rows, lines, strict=True):
        marked = ' class="better"' if row.gain and row.gain.low > 0 else ""
        rows.append(f"<tr{marked}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    return f'<div class="wide"><table>{"".join(rows)}</table></div><p>{escape(comparison.caption())}</p>'


def _pictures(pictures: Sequence[Picture]) -> str:
    """One sheet per key, with a slider over steps where there are several."""
    sheets = []
    for key in dict.fromkeys(picture.key for picture in pictures):
        shown = _evenly_spaced([picture for picture in pictures if picture.key == key], MAX_PICTURES)
        images = "".join(
            f'<img data-step="{p.step}" alt="{escape(key)} at step {p.step}" src="data:image/png;base64,'
            f'{base64.b64encode(p.path.read_bytes()).decode()}"{"" if p is shown[-1] else " hidden"}>'
            for p in shown
        )
        last = len(shown) - 1
        slider = f"<p>step {shown[-1].step}</p>"
        if last:
            slider = f"<label>step <output>{shown[-1].step}</output> "
            slider += f'<input type="range" min="0" max="{last}" value="{last}"></label>'
        sheets.append(f'<div class="sheet"><h3>{escape(key)}</h3>{slider}<div class="wide">{images}</div></div>')
    return "".join(sheets) or "<p>No pictures were written.</p>"


def _evenly_spaced(pictures: Sequence[Picture], count: int) -> Sequence[Picture]:
    """At most `count` of the pictures, the first and the last among them."""
    if len(pictures) <= count:
        return pictures
    return [pictures[round(i * (len(pictures) - 1) / (count - 1))] for i in range(count)]


def _metadata(run: Run) -> str:
    record = run.record
    shown: dict[str, Any] = {"run": record.id, "kind": record.kind, "started": f"{record.started:%Y-%m-%d %H:%M} UTC"}
    shown |= {
        key: value for key, value in record.metadata.items() if key not in ("labelled_scans", "transfer", "health")
    }
    shown["labelled scans"] = len(record.metadata.get("labelled_scans", [])) or None
    shown["transferred"] = [_transferred(report) for report in record.metadata.get("transfer", [])] or None
    shown["settings changed"] = record.changes or None
    shown |= {"resumed": len(record.resumes), **{f"version of {k}": v for k, v in record.versions.items()}}
    shown |= {f"code {k}": v for k, v in record.code.items()}
    plain = {k: v if isinstance(v, str) else json.dumps(v) for k, v in shown.items() if v is not None}
    return _definitions(plain)


def _transferred(report: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.get("counts", {}).items() if count)
    return f"{report.get('what', 'weights')}: {counts}"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>" if items else ""


def _definitions(values: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in values.items())}</dl>"
