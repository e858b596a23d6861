"""The result of an ingest in numbers."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from medssl.cohort.manifest import ManifestRow

_EXAMPLES = 3


@dataclass(frozen=True)
class IngestReport:
    """Counts over the manifest.

    Attributes:
        n_files: files under the sources.
        n_scans: rows that are accepted.
        n_rejected: rows that are not, and files without a row.
        n_labelled: accepted scans with a label.
        n_loaded: scans that this run loaded.
        reasons: rejected rows and files by reason code, the commonest first.
        flags: rows by flag, the commonest first.
        splits: accepted scans by split.
        modalities: accepted scans by modality, the commonest first.
        examples: a few scan ids by reason code, which `medssl archive explain` takes.
        elapsed_s: how long the run took.
        notices: sentences for the user of this machine, who sees paths.
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

    def count(self, row: ManifestRow) -> ManifestRow:
        """The same row, counted."""
        self.flags.update(row.flags)
        if row.accepted:
            self.scans += 1
            self.labelled += row.labelled
            self.splits[row.split] += 1
            self.modalities[row.modality] += 1
        else:
            self.count_file(str(row.reason))
            examples = self.examples.setdefault(str(row.reason), [])
            if len(examples) < _EXAMPLES:
                examples.append(row.scan_id)
        return row

    def count_file(self, reason: str) -> None:
        """Count a file that has no row of its own."""
        self.reasons[reason] += 1
        self.rejected += 1

    def report(self, *, n_files: int, n_loaded: int, elapsed_s: float, notices: tuple[str, ...] = ()) -> IngestReport:
        """The counts so far."""
        return IngestReport(
            n_files=n_files,
            n_scans=self.scans,
            n_rejected=self.rejected,
            n_labelled=self.labelled,
            n_loaded=n_loaded,
            reasons=dict(self.reasons.most_common()),
            flags=dict(self.flags.most_common()),
            splits=dict(sorted(self.splits.items())),
            modalities=dict(self.modalities.most_common()),
            examples=self.examples,
            elapsed_s=round(elapsed_s, 2),
            notices=notices,
        )
