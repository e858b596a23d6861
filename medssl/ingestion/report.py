"""The result of an ingest in numbers."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from medssl.cohort.manifest import ManifestRow

_EXAMPLES = 3


@dataclass(frozen=True)
class IngestReport:
    """Counts over the manifest. examples: per reason a few scan ids, which `medssl archive explain` takes. notices:
    sentences for the user of this machine, who sees paths.
    """

    n_files: int
    n_scans: int
    n_rejected: int
    n_labelled: int
    n_loaded: int
    reasons: dict[str, int]
    flags: dict[str, int]
    splits: dict[str, int]
    modalities: dict[str, int]
    examples: dict[str, list[str]]
    elapsed_s: float
    notices: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


@dataclass
class Tally:
    """Counts manifest rows as they pass by."""

    scans: int = 0
    rejected: int = 0
    labelled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def watch(self, rows: Iterable[ManifestRow]) -> Iterator[ManifestRow]:
        """The same rows, counted."""
        for row in rows:
            self._count(row)
            yield row

    def note(self, reason: str, count: int) -> None:
        """Count files that have no row of their own."""
        self.reasons[reason] += count
        self.rejected += count

    def report(self, *, n_files: int, n_loaded: int, elapsed_s: float, notices: tuple[str, ...] = ()) -> IngestReport:
        """The counts so far."""
        return IngestReport(
            n_files,
            self.scans,
            self.rejected,
            self.labelled,
            n_loaded,
            dict(self.reasons.most_common()),
            dict(self.flags.most_common()),
            dict(sorted(self.splits.items())),
            dict(self.modalities.most_common()),
            self.examples,
            round(elapsed_s, 2),
            notices,
        )

    def _count(self, row: ManifestRow) -> None:
        self.flags.update(row.flags)
        if row.accepted:
            self.scans += 1
            self.labelled += row.labelled
            self.splits[row.split] += 1
            self.modalities[row.modality] += 1
            return
        self.rejected += 1
        self.reasons[str(row.reason)] += 1
        shown = self.examples.setdefault(str(row.reason), [])
        if len(shown) < _EXAMPLES:
            shown.append(row.scan_id)
