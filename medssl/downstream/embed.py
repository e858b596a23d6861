"""One vector per scan from a pretrained encoder, for nearest neighbours, maps and simple classifiers."""

import io
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
from medssl.progress import Silent, StageProgress
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume, open_volume

LEVELS = 2  # the coarsest of the pyramid, as in the vectors of the pretext tasks
WINDOW_BATCH = 4
MAX_EDGE_VOXELS = 1024  # of a window: encoder.json may be hostile, and scans are padded to the window


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The vectors of a cohort.

    Attributes:
        rows: Manifest rows of the N scans that have a vector.
        vectors: (N, F) float32, one row per entry of `rows`.
        failed: Scan id to the reason why a scan has none.
    """

    rows: tuple[ManifestRow, ...]
    vectors: npt.NDArray[np.float32]
    failed: dict[str, str]


def embed_scans(
    run_folder: str | Path, cohort_folder: str | Path, *, progress: StageProgress | None = None
) -> Embeddings:
    """Vectors of all accepted scans of a cohort, by the encoder in the folder of a pretraining.

    Raises CheckpointError where that holds no encoder, ConfigError where its patch does not fit it, DataError where no
    scan of the cohort can be read.
    """
    run_folder, cohort_folder, progress = Path(run_folder), Path(cohort_folder), progress or Silent()
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
        progress.step("scans", number, len(accepted))
    if not rows:
        reason = next(iter(failed.values()), "its manifest has no accepted scan")
        raise DataError(f"no scan of {cohort_folder} has a vector: {reason}")
    return Embeddings(tuple(rows), np.stack(vectors), failed)


@torch.no_grad()
def scan_vector(encoder: Encoder, scan: StoredVolume, *, patch: Shape3D) -> Tensor:
    """(F,) float32: the mean over windows that tile the body's box; the last along an axis overlaps its neighbour.

    Each window gives mean and maximum of the encoder's two coarsest levels. A window that is larger than the box is
    filled with air.

    Args:
        encoder: In evaluation mode.
        scan: A stored scan.
        patch: (D, H, W) voxels of a window, as in the training of the encoder.
    """
    from monai.data.utils import dense_patch_slices

    image = scan.normalised()
    start, stop = scan.body_box
    image = image[tuple(map(slice, start, stop))]
    missing = [max(0, edge - size) for edge, size in zip(patch, image.shape, strict=True)]
    # F.pad counts axes from the last: W before, W after, H before, ...
    padding = [side for gap in reversed(missing) for side in (gap // 2, gap - gap // 2)]
    image = F.pad(image, padding, value=scan.normalisation.pad_value)
    windows = torch.stack([image[box] for box in dense_patch_slices(image.shape, patch, patch)])[:, None]
    device = next(encoder.parameters()).device
    batches = torch.split(windows, WINDOW_BATCH)  # each (<= 4, 1, D, H, W)
    vectors = [pooled_levels(encoder(batch.to(device)), LEVELS).float() for batch in batches]
    return torch.cat(vectors).mean(dim=0)


def write_embeddings(embeddings: Embeddings, out: Path) -> None:
    """Write a table with scan_id, patient_id, split, modality and one column per feature.

    It is CSV where `out` ends in .csv, else Parquet. Raises DataError where it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    described_by = ("scan_id", "patient_id", "split", "modality")
    columns = {name: [getattr(row, name) for row in embeddings.rows] for name in described_by}
    columns |= {f"f{number}": column for number, column in enumerate(embeddings.vectors.T)}
    write = pa.csv.write_csv if out.suffix == ".csv" else pa.parquet.write_table
    content = io.BytesIO()
    write(pa.table(columns), content)
    write_bytes(out, content.getvalue())


def _patch(folder: Path) -> Shape3D:
    patch = stated_patch(encoder_record(folder).metadata)
    if patch is None or not all(0 < edge <= MAX_EDGE_VOXELS for edge in patch):
        raise CheckpointError(f"{folder / 'encoder.json'} does not say for which patch the encoder was trained.")
    return patch
