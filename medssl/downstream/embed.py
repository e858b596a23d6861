"""One vector per scan: what a pretrained encoder makes of it, for neighbours, maps and simple classifiers."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.cohort.cohort import Cohort
from medssl.cohort.manifest import ManifestRow
from medssl.encoders.build import check_patch
from medssl.encoders.encoder import Encoder
from medssl.encoders.records import stated_patch
from medssl.encoders.weights import encoder_record, load_encoder
from medssl.errors import CheckpointError, DataError
from medssl.files import write_bytes
from medssl.pretext.projection import pooled_levels
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume, open_volume

LEVELS = 2  # of the pyramid, the coarsest: as in the tasks' own vectors
WINDOWS = 4  # that are computed at once
MAX_EDGE = 1024  # of a window in voxels: records come from strangers, and scans are padded to it


@dataclass(frozen=True, eq=False)
class Embeddings:
    """vectors: (N, F) float32, one row per row of the manifest. failed: scan id to reason, of scans that have none."""

    rows: tuple[ManifestRow, ...]
    vectors: npt.NDArray[np.float32]
    failed: dict[str, str]


def embed_scans(
    run_folder: Path, cohort_folder: Path, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Embeddings:
    """Vectors of all accepted scans of a cohort, by the encoder in the folder of a pretraining.

    Raises CheckpointError where that holds none, ConfigError where its patch does not fit it, DataError for a cohort
    of which no scan can be read.
    """
    patch = _patch(run_folder)
    encoder, _ = load_encoder(run_folder)
    check_patch(encoder, patch)
    encoder.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    cohort = Cohort.open(cohort_folder)
    accepted = cohort.accepted()
    rows, vectors, failed = [], [], {}
    for number, row in enumerate(accepted, start=1):
        try:
            vectors.append(scan_vector(encoder, open_volume(cohort.store, row.scan_id), patch=patch).cpu().numpy())
            rows.append(row)
        except DataError as error:
            failed[row.scan_id] = str(error)
        progress(number, len(accepted))
    if not rows:
        reason = next(iter(failed.values()), "its manifest has no accepted scan")
        raise DataError(f"no scan of {cohort_folder} has a vector: {reason}")
    return Embeddings(tuple(rows), np.stack(vectors), failed)


@torch.no_grad()
def scan_vector(encoder: Encoder, scan: StoredVolume, *, patch: Shape3D) -> Tensor:
    """(F,) float32: mean over windows that cover the body's box side by side, the last along an axis overlapping
    the one before; each gives mean and maximum of the encoder's two coarsest levels.

    patch: (D, H, W) voxels of a window, as the encoder was trained. What a window has beyond the scan is air.
    """
    from monai.data.utils import dense_patch_slices

    image = scan.normalised()
    start, stop = scan.body_box
    image = image[tuple(map(slice, start, stop))]
    missing = [max(0, edge - have) for edge, have in zip(patch, image.shape, strict=True)]
    around = [part for gap in reversed(missing) for part in (gap // 2, gap - gap // 2)]
    image = F.pad(image, around, value=scan.normalisation.pad_value)
    windows = torch.stack([image[place] for place in dense_patch_slices(image.shape, patch, patch)])[:, None]
    device = next(encoder.parameters()).device
    found = [pooled_levels(encoder(part.to(device)), LEVELS).float() for part in torch.split(windows, WINDOWS)]
    return torch.cat(found).mean(dim=0)


def write_embeddings(embeddings: Embeddings, out: Path) -> None:
    """A table with scan_id, patient_id, split, modality and one column per feature: CSV where `out` ends in .csv, else
    Parquet. Raises DataError where it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    facts = ("scan_id", "patient_id", "split", "modality")
    columns = {name: [getattr(row, name) for row in embeddings.rows] for name in facts}
    columns |= {f"f{number}": column for number, column in enumerate(embeddings.vectors.T)}
    write = pa.csv.write_csv if out.suffix == ".csv" else pa.parquet.write_table
    content = io.BytesIO()
    write(pa.table(columns), content)
    write_bytes(out, content.getvalue())


def _patch(folder: Path) -> Shape3D:
    patch = stated_patch(encoder_record(folder).metadata)
    if patch is None or not all(0 < edge <= MAX_EDGE for edge in patch):
        raise CheckpointError(f"{folder / 'encoder.json'} does not say for which patch the encoder was trained.")
    return patch
