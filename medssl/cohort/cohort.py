"""A cohort on disk: what ingest leaves behind and everything else starts from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from medssl.cohort.manifest import ManifestRow, read_manifest
from medssl.errors import DataError
from medssl.files import write_bytes
from medssl.formats import check_format
from medssl.randomness import generator

FORMAT = 1
MANIFEST = "manifest.parquet"
COHORT = "cohort.json"


@dataclass(frozen=True)
class CohortDescription:
    """What cohort.json says: settings that hold for the whole cohort.

    Attributes:
        key_id: names the pseudonym key without giving it away.
        seed, fractions: of the split.
        policy: how scans are stored, as `StorePolicy` has it.
        rules: by which series were judged.
        label_names: class value to name.
        format: version of the file.
        medssl: version that wrote it.
    """

    key_id: str
    seed: int
    fractions: tuple[float, float, float]
    policy: dict[str, Any]
    rules: dict[str, Any]
    label_names: dict[int, str]
    format: int = FORMAT
    medssl: str = field(default_factory=lambda: version("medssl"))


_DESCRIPTIONS = TypeAdapter(CohortDescription)


@dataclass(frozen=True)
class Cohort:
    """A folder with a manifest and a store.

    Attributes:
        folder: where it lies.
        rows: the manifest.
        label_names: class value to name, 0 being the background.
        policy: how scans were resampled, as `StorePolicy` has it.
    """

    folder: Path
    rows: tuple[ManifestRow, ...]
    label_names: dict[int, str]
    policy: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path) -> "Cohort":
        """Read a cohort. Raises DataError when `folder` has none, or one of another format."""
        folder = Path(folder)
        description = read_description(folder)
        return cls(folder, read_manifest(folder / MANIFEST), description.label_names, description.policy)

    @property
    def store(self) -> Path:
        """Folder with the voxels, one file per scan id."""
        return self.folder / "store"

    def accepted(self, *, split: str | None = None, labelled: bool | None = None) -> tuple[ManifestRow, ...]:
        """Scans in the store, by scan id; of one split, and only with or only without a label, where asked."""
        rows = (row for row in self.rows if row.accepted)
        chosen = (row for row in rows if split in (None, row.split) and labelled in (None, row.labelled))
        return tuple(sorted(chosen, key=lambda row: row.scan_id))

    def sample_labelled(self, count: int, *, seed: int) -> tuple[ManifestRow, ...]:
        """`count` labelled scans of the training split, drawn by the seed, or all where there are fewer: the scans that
        fine-tuning learns from. A larger sample with the same seed contains a smaller one.
        """
        rows = self.accepted(split="train", labelled=True)
        order = generator(seed, 0, "labelled scans").permutation(len(rows))
        return tuple(rows[i] for i in order[:count])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest's content; the same for the same rows, whatever wrote the file and when."""
        digest = hashlib.sha256()
        for row in sorted(self.rows, key=lambda row: row.scan_id):
            digest.update(json.dumps(asdict(row), sort_keys=True).encode() + b"\n")
        return digest.hexdigest()


def write_description(folder: Path, description: CohortDescription) -> None:
    """Write cohort.json, replacing the file only when it is complete."""
    write_bytes(folder / COHORT, _DESCRIPTIONS.dump_json(description, indent=2) + b"\n")


def read_description(folder: Path) -> CohortDescription:
    """What cohort.json says.

    Raises:
        DataError: when there is none, it is damaged, or it is of another format.
    """
    path = folder / COHORT
    try:
        content = json.loads(path.read_text())
        writer, remedy = content.get("medssl"), "ingest into a new folder"
        check_format(path, content.get("format"), FORMAT, writer=writer, remedy=remedy)
        return _DESCRIPTIONS.validate_python(content)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a cohort: it has no {COHORT}. Make one with: medssl ingest SOURCE --out {folder}"
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} cannot be read. Restore it from a copy, or ingest into a new folder.") from error
