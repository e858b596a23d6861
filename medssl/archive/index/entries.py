"""What the private index holds of one file and of one scan, and what of a scan stays when it is planned anew."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter

from medssl.archive.index.load_plan import LOAD_PLANS, LoadPlan
from medssl.archive.index.path_text import PathText, path_text
from medssl.archive.index.planned_scan import OUTCOMES, PLANNED_SCANS, Outcome, PlannedScan
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Reason


@dataclass(frozen=True)
class IndexedFile:
    """One file and what its header said.

    Attributes:
        path: where it lies.
        root: the source that it was found in.
        stamp: its size and time when it was read.
        kind: such as 'dicom', 'nifti' or 'container'.
        reason, detail: why it is left out by itself, where it is.
        series: key of its series.
        record: JSON of its header record, None where it has none.
    """

    path: Path
    root: Path
    stamp: FileStamp
    kind: str
    reason: Reason | None
    detail: str
    series: str | None
    record: str | None


@dataclass(frozen=True)
class IndexedScan:
    """One planned or rejected scan, as rows of the index have it: parts as JSON, parsed when they are asked for.

    Attributes:
        scan_id: its pseudonym.
        series: key of its series.
        load_plan_json: what to read for it; None where it is left out.
        planned_json: what its headers say.
        detail: for people on the machine, beside the reason.
        outcome_json: what loading gave; None before that.
        previous_json: the same scan as it was stored before, while it waits to be loaded from elsewhere or anew.
    """

    scan_id: str
    series: str
    load_plan_json: str | None
    planned_json: str
    detail: PathText
    outcome_json: str | None = None
    previous_json: str | None = None

    @classmethod
    def of(cls, planned: PlannedScan, series: str, load_plan: LoadPlan | None, detail: str) -> "IndexedScan":
        """A scan that was just planned; load_plan is None where it is left out."""
        text = None if load_plan is None else LOAD_PLANS.dump_json(load_plan).decode()
        return cls(planned.scan_id, series, text, PLANNED_SCANS.dump_json(planned).decode(), detail)

    @cached_property
    def load_plan(self) -> LoadPlan | None:
        """What to read for it; None where it is left out."""
        return None if self.load_plan_json is None else LOAD_PLANS.validate_json(self.load_plan_json)

    @cached_property
    def planned(self) -> PlannedScan:
        """What its headers say."""
        return PLANNED_SCANS.validate_json(self.planned_json)

    @cached_property
    def outcome(self) -> Outcome | None:
        """What loading gave; None before that."""
        return None if self.outcome_json is None else OUTCOMES.validate_json(self.outcome_json)

    @property
    def stored(self) -> "IndexedScan | None":
        """What lies in the store under this id, as far as the index knows: this scan, or what it was before."""
        if self.outcome is not None:
            return None if self.outcome.reason else self
        return INDEXED_SCANS.validate_json(self.previous_json) if self.previous_json else None

    def replanned(self, new: "IndexedScan") -> "IndexedScan":
        """This scan as `new` plans it: with its outcome where that would be the same, else with what is stored of it.

        A scan whose plan went back to what is stored, such as a disk that is mounted again, is not loaded again.
        """
        stored = self.stored
        if stored is not None and stored._loads_like(new):
            return replace(new, outcome_json=stored.outcome_json, previous_json=None)
        if self._loads_like(new):
            return replace(new, outcome_json=self.outcome_json, previous_json=None)
        return replace(new, outcome_json=None, previous_json=stored.as_previous() if stored else None)

    def as_previous(self) -> str:
        """JSON of this scan for the scan that takes its place until that is loaded."""
        return INDEXED_SCANS.dump_json(replace(self, previous_json=None)).decode()

    def _loads_like(self, new: "IndexedScan") -> bool:
        """Whether the same voxels would be stored: the modality decides how."""
        return self.load_plan_json == new.load_plan_json and self.planned.modality == new.planned.modality


INDEXED_SCANS = TypeAdapter(IndexedScan)


def series_key(path: Path) -> str:
    """Key of the series that a NIfTI file is by itself."""
    return f"nifti:{path_text(path)}"
