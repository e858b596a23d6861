"""The review page: one self-contained HTML file on which somebody decides whether an encoder learned, and helps.

It holds its pictures, charts and script itself and fetches nothing, so that it opens from a disk, in MLflow's
sandboxed frame and years later.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from medssl.errors import UsageError
from medssl.files import write_bytes
from medssl.runs.picture_files import Picture
from medssl.runs.run import Run
from medssl.tracking.answer import read_answer
from medssl.tracking.charts import curves, dice_over_labels
from medssl.tracking.evidence import FILE_NAME, Evidence, alarms, cautions, interval, points, read_evidence, verdict

PAGE = "review.html"
MAX_STEPS = 12
MAX_RUNS_SHOWN = 6


def write_review(folder: Path) -> Path:
    """Write FOLDER/review.html for a run or a label-efficiency folder and return its path.

    Raises UsageError when the folder is neither, DataError when something in it is damaged.
    """
    if (folder / FILE_NAME).exists():
        body = "".join(_evidence_sections(folder))
    elif (folder / "run.json").exists():
        body = "".join(_run_sections(Run.open(folder)))
    else:
        raise UsageError(f"{folder} is neither a run nor a label-efficiency folder. `medssl runs` lists runs.")
    template = Template(files("medssl.tracking").joinpath("review_page.html").read_text())
    page = template.substitute(title=escape(folder.name), body=body)
    path = folder / PAGE
    write_bytes(path, page.encode())
    return path


def _evidence_sections(folder: Path) -> Iterator[str]:
    evidence = read_evidence(folder)
    yield f'<p class="verdict">{escape(verdict(evidence))}</p>'
    yield f"<p>{evidence.cases} test scans, {evidence.seeds} seeds. Gains are paired by seed and scan.</p>"
    answer = {key.replace("_", " "): str(value) for key, value in read_answer(folder).items()}
    yield _section("Review", _definitions(answer) if answer else "")
    yield _section("Dice over the number of labels", dice_over_labels(evidence) + _table(evidence))
    yield _section("Cautions", _list(cautions(evidence)) or "<p>None found by the rules of docs/review.md.</p>")
    runs = [Run.open(path.parent) for path in sorted((folder / "runs").glob("*/run.json"))]
    losses = {run.folder.name: _series(run, "train/loss") for run in _examples(runs)}
    yield _section("Training loss of one fine-tuning per start", curves("train/loss", losses))
    for run in _examples(runs):
        yield _section(f"Predictions: {run.folder.name}", _pictures(run.pictures()))
    if runs:
        yield _section("Facts", _facts(runs[0]))


def _examples(runs: Sequence[Run]) -> list[Run]:
    """The first fine-tuning of each start at the lowest label count: what differs there differs for the reason that
    matters. Scratch comes first, as in the table, and so has the same colour.
    """

    def place(run: Run) -> tuple[int, bool, str]:
        return int(run.config.get("num_labelled", 0)), run.config.get("init") != "scratch", run.folder.name

    first: dict[str, Run] = {}
    for run in sorted(runs, key=place):
        first.setdefault(run.folder.name.rsplit("-n", 1)[0], run)
    return list(first.values())[:MAX_RUNS_SHOWN]


def _run_sections(run: Run) -> Iterator[str]:
    yield f'<p class="verdict">{escape(_standing(run))}</p>'
    lines = run.metrics()
    keys = dict.fromkeys(key for line in lines for key in line if key not in ("step", "time"))
    charts = [curves(key, {key: _series(run, key)}) for key in keys if not key.startswith("test/")]
    scores = {key: line[key] for line in lines for key in keys if key.startswith("test/") and key in line}
    if scores:
        yield _section("Scores", _definitions({key: f"{value:.3f}" for key, value in scores.items()}))
    yield _section("Pictures", _pictures(run.pictures()))
    yield _section("Curves", f'<div class="charts">{"".join(charts)}</div>')
    yield _section("Facts", _facts(run))


def _standing(run: Run) -> str:
    record = run.record
    if run.silent_for_s:
        return f"Says 'running', but has been silent for {run.silent_for_s / 3600:.1f} h: it was probably killed."
    health = f" {run.metadata['health']}" if "health" in run.metadata else ""
    reason = f" ({record.reason})" if record.reason else ""
    return f"{record.kind}: {record.status}{reason}.{health}"


def _series(run: Run, key: str) -> list[tuple[float, float]]:
    return [(float(line["step"]), float(line[key])) for line in run.metrics() if key in line]


def _table(evidence: Evidence) -> str:
    classes = list(evidence.lines[0].classes)
    head = "".join(f"<th>{escape(h)}</th>" for h in ["labels", "start", "Dice", "95 %", "vs scratch", "95 % paired"])
    head += "".join(f"<th>class {escape(c)}</th>" for c in classes)
    has_empty = any(line.false_alarms[1] for line in evidence.lines)
    head += "<th>false alarms</th>" if has_empty else ""
    rows = []
    for line in evidence.lines:
        gain = (points(line.gain[0]), interval(line.gain)) if line.gain else ("", "")
        span = f"{100 * line.dice[1]:.1f} to {100 * line.dice[2]:.1f}"
        cells = [str(line.labels), line.init, f"{100 * line.dice[0]:.1f}", span, *gain]
        cells += ["none" if (dice := line.classes[c]) is None else f"{100 * dice:.1f}" for c in classes]
        cells += [alarms(line)] if has_empty else []
        marked = ' class="better"' if line.gain and line.gain[1] > 0 else ""
        rows.append(f"<tr{marked}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    caption = "Dice in points of 100. A class counts in the scans whose reference has it, for every start alike."
    if has_empty:
        caption += " False alarms: a class predicted where the reference lacks it; Dice does not see them."
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div><p>{caption}</p>'


def _pictures(pictures: Sequence[Picture]) -> str:
    """One sheet per key, with a slider over steps where there are several."""
    parts = []
    for key in dict.fromkeys(picture.key for picture in pictures):
        own = [picture for picture in pictures if picture.key == key]
        kept = (
            own
            if len(own) <= MAX_STEPS
            else [own[round(i * (len(own) - 1) / (MAX_STEPS - 1))] for i in range(MAX_STEPS)]
        )
        images = "".join(
            f'<img data-step="{p.step}" alt="{escape(key)} at step {p.step}" src="data:image/png;base64,'
            f'{base64.b64encode(p.path.read_bytes()).decode()}"{"" if p is kept[-1] else " hidden"}>'
            for p in kept
        )
        slider = (
            f"<label>step <output>{kept[-1].step}</output> "
            f'<input type="range" min="0" max="{len(kept) - 1}" value="{len(kept) - 1}"></label>'
            if len(kept) > 1
            else f"<p>step {kept[-1].step}</p>"
        )
        parts.append(f'<div class="sheet"><h3>{escape(key)}</h3>{slider}<div class="wide">{images}</div></div>')
    return "".join(parts) or "<p>No pictures were written.</p>"


def _facts(run: Run) -> str:
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
