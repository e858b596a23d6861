"""The review card: a few lines of Markdown on the run's page in MLflow."""

from medssl.runs.run import Run

NOTE = "mlflow.note.content"
_PREFIXES = ("test/", "probe/")


def run_card(run: Run) -> str:
    """Status, verdict, scores, and where all evidence lies; without any path or name."""
    metadata, record = run.metadata, run.record
    task = metadata.get("task") or metadata.get("init") or ""
    lines = [f"**{record.kind}{f' ({task})' if task else ''}: {record.status}**"]
    if "health" in metadata:
        lines += ["", str(metadata["health"])]
    latest = {key: value for line in run.metrics() for key, value in line.items()}
    scores = {key: value for key, value in latest.items() if key.startswith(_PREFIXES)}
    if scores:
        lines += ["", "| score | value |", "| --- | --- |"]
        lines += [f"| {key} | {value:.3f} |" for key, value in scores.items()]
    rows = []
    if record.resumes:
        rows.append(f"- resumed after steps {', '.join(map(str, record.resumes))}")
    rows += [f"- settings changed after step {c['step']}: {', '.join(c['before'])}" for c in record.changes]
    if "cohort_digest" in metadata:
        rows.append(f"- data: {metadata.get('scans', '?')} scans, digest {metadata['cohort_digest']}")
    if record.code.get("dirty"):
        rows.append("- caution: medssl's source was changed since its commit")
    if "review" in metadata:
        rows.append(f"- review: {metadata['review']}. {metadata.get('reviewer_note', '')}".rstrip())
    return "\n".join([*lines, "", *rows, "", "All evidence: `medssl review RUN` writes review.html in the run folder."])
