"""Images that hold a whole volume as tiles: Siemens mosaics and UIH grids."""

import math
import struct
from collections.abc import Iterator

from medssl.archive.dicom import tags
from medssl.archive.dicom.record import Frame, Record, Vector
from medssl.archive.dicom.values import Values
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

_CSA_ELEMENTS = ("NumberOfImagesInMosaic", "SliceNormalVector", "B_value")
_MAX_CSA_ITEMS = 1000


def mosaic_frames(values: Values, record: Record, whole: Frame) -> tuple[tuple[Frame, ...], int]:
    """Tiles of a Siemens mosaic as frames, and the tiles per row. Raises Rejected with BAD_MOSAIC.

    The header places the centre of the mosaic where the centre of each slice lies, so the first voxel of a slice is
    half the
    difference of the two edges further in; slices follow along the normal vector of the private CSA header, which may
    point
    against the one that orientation gives.
    """
    csa = _csa(values.raw(tags.SIEMENS_CSA_IMAGE_HEADER))
    count = int(csa.get("NumberOfImagesInMosaic", [values.short(tags.SIEMENS_NUMBER_OF_IMAGES_IN_MOSAIC)])[0])
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
    common = whole._replace(b_value=b_value)[3:]  # all but number, tile and position: a series has many tiles
    frames = []
    for tile in range(count):
        x, y, z = (first[axis] + tile * step * normal[axis] for axis in range(3))
        frames.append(Frame(0, tile, (x, y, z), *common))
    return tuple(frames), grid


def uih_frames(values: Values, record: Record, whole: Frame) -> tuple[tuple[Frame, ...], int]:
    """Tiles of a UIH grid as frames, each at its own position, and the tiles per row. Raises Rejected with UIH_GRID."""
    count = values.integer(tags.UIH_NUMBER_OF_TILES) or 0
    items = values.items(tags.UIH_TILE_SEQUENCE)
    if count < 1 or len(items) != count:
        raise Rejected(Reason.UIH_GRID, f"{len(items)} tile descriptions for {count} tiles")
    grid = _tiles_per_row(count, record, Reason.UIH_GRID)
    frames = []
    for tile, item in enumerate(items):
        numbers = item.decimals(tags.IMAGE_POSITION_PATIENT)
        if len(numbers) != 3:
            raise Rejected(Reason.UIH_GRID, f"tile {tile} has no position")
        position: Vector = (numbers[0], numbers[1], numbers[2])
        own = item.decimals(tags.IMAGE_ORIENTATION_PATIENT)
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
    """Numbers of the wanted elements of a Siemens CSA header; none where it cannot be read.

    The layout is the one that nibabel describes (doc/source/dicom/siemens_csa.rst). Read here because nibabel's reader
    asserts things about a file, and makes an object of each of its hundred elements for every volume of a time series.
    """
    try:
        found = {name: [float(text) for text in texts] for name, texts in _csa_elements(raw)}
    except (struct.error, ValueError):
        return {}
    return {name: numbers for name, numbers in found.items() if numbers and all(map(math.isfinite, numbers))}


def _csa_elements(raw: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Names and texts of the wanted elements. Raises struct.error or ValueError where the header is no such.

    An element has a name, a number of values and a number of items, an item four numbers, of which the second is the
    length of its text, padded to four bytes. Before software VB it was the first, less the items of the second element.
    """
    newer = raw.startswith(b"SV10")
    position, odd = (16, 0) if newer else (8, 0)
    n_elements = int(struct.unpack_from("<I", raw, position - 8)[0])
    if n_elements > _MAX_CSA_ITEMS:
        raise ValueError(f"{n_elements} elements")
    for number in range(n_elements):
        n_values, n_items = struct.unpack_from("<64xi8xi", raw, position)
        name = raw[position : position + 64].split(b"\0", 1)[0].decode("latin-1")
        position += 84
        if number == 1 and not newer:
            odd = n_items
        if n_items > _MAX_CSA_ITEMS:
            raise ValueError(f"{n_items} items in an element")
        texts = []
        for _ in range(n_items):
            first, second = struct.unpack_from("<ii", raw, position)
            length = second if newer else first - odd
            position += 16
            if length < 0 or position + length > len(raw):
                if newer:
                    raise ValueError("an item that is longer than its header")
                break
            texts.append(raw[position : position + length].split(b"\0", 1)[0].strip())
            position += length + -length % 4
        if name in _CSA_ELEMENTS:
            texts = texts[: n_values or n_items]
            yield name, texts[: texts.index(b"")] if b"" in texts else texts
