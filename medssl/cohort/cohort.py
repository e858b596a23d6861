"""A cohort on disk: what ingest leaves behind and everything else starts from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from medssl.cohort.manifest import ManifestRow, read_manifest
from medssl.errors import DataError
from medssl.randomness import generator

FORMAT = 1
MANIFEST = "manifest.parquet"
COHORT = "cohort.json"


@dataclass(frozen=True)
class Cohort:
    """A folder with a manifest and a store.

    label_names: class value to name, 0 being the background. policy: how scans were resampled, as `StorePolicy` has it.
    """

    folder: Path
    rows: tuple[ManifestRow, ...]
    label_names: dict[int, str]
    policy: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> "Cohort":
        """Read a cohort. Raises DataError when `folder` holds none, or one of another format."""
        facts = read_facts(folder)
        names = {int(value): str(name) for value, name in facts["label_names"].items()}
        return cls(folder, read_manifest(folder / MANIFEST), names, facts["policy"])

    @property
    def store(self) -> Path:
        """Folder with the voxels, one file per scan id."""
        return self.folder / "store"

    def accepted(self, *, split: str | None = None, labelled: bool | None = None) -> tuple[ManifestRow, ...]:
        """Scans in the store, by scan id; of one split, and only with or only without a label, where asked."""
        rows = (row for row in self.rows if row.accepted)
        chosen = (row for row in rows if split in (None, row.split) and labelled in (None, row.labelled))
        return tuple(sorted(chosen, key=lambda row: row.scan_id))

    def drawn_labelled(self, count: int, *, seed: int) -> tuple[ManifestRow, ...]:
        """`count` labelled scans of the training split, or all where there are fewer, drawn by the seed: the scans that
        fine-tuning learns from. More with one seed contain fewer.
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


def read_facts(folder: Path) -> dict[str, Any]:
    """What cohort.json says. Raises DataError when there is none or it is of another format."""
    path = folder / COHORT
    try:
        facts = json.loads(path.read_text())
        found = facts["format"]
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is no cohort: it has no {COHORT}. Make one with: medssl ingest SOURCE --out {folder}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read. Restore it from a copy, or ingest into a new folder.") from error
    if found != FORMAT:
        raise DataError(f"{path} has format {found}; this medssl reads {FORMAT}. Use the medssl that wrote it.")
    return facts  # type: ignore[no-any-return]
