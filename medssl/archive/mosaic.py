"""Images that hold a whole volume as tiles: Siemens mosaics and UIH grids."""

import math
import struct
import warnings

from medssl.archive import tags
from medssl.archive.reasons import Reason
from medssl.archive.record import Frame, Record, Vector
from medssl.archive.rejection import Rejected
from medssl.archive.values import Values

_CSA_ELEMENTS = ("NumberOfImagesInMosaic", "SliceNormalVector", "B_value")


def mosaic_frames(values: Values, record: Record, whole: Frame) -> tuple[tuple[Frame, ...], int]:
    """Tiles of a Siemens mosaic as frames, and the tiles per row. Raises Rejected with BAD_MOSAIC.

    The header places the centre of the mosaic where the centre of each slice lies, so the first voxel of a slice is
    half the
    difference of the two edges further in; slices follow along the normal vector of the private CSA header, which may
    point
    against the one that orientation gives.
    """
    csa = _csa(values.raw(tags.CSA_IMAGE))
    count = int(csa.get("NumberOfImagesInMosaic", [values.short(tags.SIEMENS_MOSAIC_COUNT)])[0])
    normal = csa.get("SliceNormalVector", [])
    if count < 1 or len(normal) != 3:
        raise Rejected(
            Reason.BAD_MOSAIC, f"the private header names {count} tiles and a normal of {len(normal)} numbers"
        )
    grid = _tiles_per_row(count, record, Reason.BAD_MOSAIC)
    position, orientation, spacing, step = (
        whole.position_mm,
        whole.orientation,
        whole.pixel_spacing_mm,
        whole.thickness_mm,
    )
    if position is None or orientation is None or spacing is None or not step:
        raise Rejected(Reason.NO_GEOMETRY, "position, orientation, pixel spacing or slice spacing is missing")
    right = (record.columns - record.columns // grid) / 2 * spacing[1]
    down = (record.rows - record.rows // grid) / 2 * spacing[0]
    first = [position[axis] + right * orientation[axis] + down * orientation[axis + 3] for axis in range(3)]
    b_value = csa["B_value"][0] if csa.get("B_value") else whole.b_value
    frames = []
    for tile in range(count):
        x, y, z = (first[axis] + tile * step * normal[axis] for axis in range(3))
        frames.append(whole._replace(tile=tile, position_mm=(x, y, z), b_value=b_value))
    return tuple(frames), grid


def uih_frames(values: Values, record: Record, whole: Frame) -> tuple[tuple[Frame, ...], int]:
    """Tiles of a UIH grid as frames, each at its own position, and the tiles per row. Raises Rejected with UIH_GRID."""
    count = values.integer(tags.UIH_GRID_COUNT) or 0
    items = values.items(tags.UIH_FRAMES)
    if count < 1 or len(items) != count:
        raise Rejected(Reason.UIH_GRID, f"{len(items)} tile descriptions for {count} tiles")
    grid = _tiles_per_row(count, record, Reason.UIH_GRID)
    frames = []
    for tile, item in enumerate(items):
        numbers = item.decimals(tags.POSITION)
        if len(numbers) != 3:
            raise Rejected(Reason.UIH_GRID, f"tile {tile} has no position")
        position: Vector = (numbers[0], numbers[1], numbers[2])
        own = item.decimals(tags.ORIENTATION)
        frames.append(
            whole._replace(tile=tile, position_mm=position, orientation=own if len(own) == 6 else whole.orientation)
        )
    return tuple(frames), grid


def _tiles_per_row(count: int, record: Record, reason: Reason) -> int:
    """Tiles lie in the smallest square that holds them, row by row."""
    grid = math.ceil(math.sqrt(count))
    if count > 4096 or record.rows % grid or record.columns % grid:
        raise Rejected(reason, f"{count} tiles do not divide an image of {record.columns} x {record.rows}")
    return grid


def _csa(raw: bytes) -> dict[str, list[float]]:
    """Numbers of the wanted elements of a Siemens CSA header; none where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself experimental on import
        from nibabel.nicom import csareader

    try:
        elements = csareader.read(raw)["tags"]
        found = {name: [float(item) for item in elements[name]["items"]] for name in _CSA_ELEMENTS if name in elements}
    except (csareader.CSAError, struct.error, ValueError, TypeError, KeyError, IndexError, OverflowError):
        return {}
    return {name: numbers for name, numbers in found.items() if numbers and all(map(math.isfinite, numbers))}
