"""What can be asked of ingest, convert and verify beyond sources and output."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medssl.archive.limits import Limits
from medssl.archive.plan.dataset_names import NAME_PATTERN
from medssl.store.policy import StorePolicy


class IngestSettings(BaseModel):
    """Settings of one ingest; what outlasts it is in `CohortSettings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_dir: Path | None = Field(default=None, description="folder with label files, matched by name")
    splits: Path | None = Field(default=None, description="CSV with columns file,split that overrides the split")
    patients: Path | None = Field(default=None, description="CSV with columns patient,same_as: ids of one patient")
    fractions: tuple[float, float, float] = Field(default=(0.8, 0.1, 0.1), description="patients in train, val, test")
    seed: int = Field(default=0, description="seed of the split")
    key_file: Path | None = Field(default=None, description="file with the pseudonym key")
    label_names: Path | None = Field(
        default=None, description="CSV with columns name,label: structures of DICOM label objects to labels"
    )
    modality: str | None = Field(default=None, description="modality of NIfTI scans, whose headers have none")
    dataset: str | None = Field(
        default=None, pattern=NAME_PATTERN, description="what the sources are called in the manifest's column dataset"
    )
    policy: StorePolicy = StorePolicy()
    limits: Limits = Limits()
    workers: int | None = Field(
        default=None, ge=0, description="processes; 0 works in this one; None: as many as cores"
    )
    scheduler: str | None = Field(default=None, description="address of a Dask scheduler whose workers do the work")
    min_slices: int = Field(default=8, ge=1, description="fewest slices of a scan")
    include_derived: bool = Field(default=False, description="whether projections, maps and phase images are stored")
    volumes_per_series: int = Field(default=4, ge=1, description="most volumes stored of one time series")
    follow_symlinks: bool = Field(default=False, description="whether links inside a source are followed")
    containers: bool = Field(default=False, description="whether the members of zip, tar and gzip files are read")
    dry_run: bool = Field(default=False, description="report from the headers; write nothing")

    @model_validator(mode="after")
    def _fractions_add_up(self) -> "IngestSettings":
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"the fractions of train, val and test must add up to 1, got {self.fractions}")
        return self

    @model_validator(mode="after")
    def _workers_or_scheduler(self) -> "IngestSettings":
        if self.scheduler is not None and self.workers is not None:
            raise ValueError("workers are processes of this machine; with a scheduler its own workers do the work")
        return self
