"""A picture of a cohort for a person to look at before training: middle slices, and how spacing and size are spread."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medssl.cohort.cohort import Cohort
from medssl.cohort.manifest import ManifestRow
from medssl.store.volumes import StoredVolume, open_volume

_TILES, _ACROSS = 24, 6


def draw_overview(cohort: Cohort, path: Path) -> Path:
    """Write a PNG with a slice of up to 24 scans, evenly over the cohort, and three histograms; returns its path.

    A slice is the middle one across the scan's coarsest axis, drawn in mm and labelled with the beginning of the scan
    id: the picture shows patients, treat it so.

    Raises:
        DataError: where a scan of the store is missing or damaged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = cohort.accepted()
    chosen = [rows[index] for index in np.linspace(0, len(rows) - 1, min(_TILES, len(rows))).astype(int)]
    down = -(-len(chosen) // _ACROSS)
    figure = Figure(figsize=(12, 2.0 * down + 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(down + 1, _ACROSS, height_ratios=[1.0] * down + [1.3])
    for number, row in enumerate(chosen):
        axes = figure.add_subplot(grid[number // _ACROSS, number % _ACROSS])
        _draw_slice(axes, open_volume(cohort.store, row.scan_id), row)
    _draw_histograms(figure, grid, rows)
    figure.savefig(path, dpi=90, metadata={"Software": None})
    return path


def _draw_slice(axes: Any, stored: StoredVolume, row: ManifestRow) -> None:
    """The middle slice across the coarsest axis, from the 1st to the 99th percentile of its intensities."""
    coarsest = int(np.argmax(stored.spacing_mm))
    start, stop = [0, 0, 0], list(stored.shape)
    start[coarsest] = stored.shape[coarsest] // 2
    stop[coarsest] = start[coarsest] + 1
    voxels = stored.read((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).take(0, axis=coarsest)
    image: npt.NDArray[np.float32] = np.asarray(voxels.astype(np.float32) * stored.scale + stored.offset)
    darkest, brightest = (float(value) for value in np.percentile(image, (1, 99)))
    tall, wide = (edge for axis, edge in enumerate(stored.spacing_mm) if axis != coarsest)
    axes.imshow(
        image[::-1],
        cmap="gray",
        vmin=darkest,
        vmax=max(brightest, darkest + 1e-6),
        aspect=tall / wide,
        interpolation="nearest",
    )
    axes.set_title(f"{row.scan_id[:8]} {row.modality}", fontsize=7)
    axes.set_axis_off()


def _draw_histograms(figure: Any, grid: Any, rows: tuple[ManifestRow, ...]) -> None:
    spacing = [row.spacing_mm for row in rows if row.spacing_mm]
    shapes = [row.shape for row in rows if row.shape]
    panels: tuple[tuple[str, list[float]], ...] = (
        ("smallest voxel edge (mm)", [min(edges) for edges in spacing]),
        ("largest voxel edge (mm)", [max(edges) for edges in spacing]),
        ("shortest side (voxels)", [float(min(shape)) for shape in shapes]),
    )
    for number, (title, values) in enumerate(panels):
        axes = figure.add_subplot(grid[-1, 2 * number : 2 * number + 2])
        axes.hist(values, bins=min(30, max(5, len(set(values)))))
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=7)
