"""Images that hold a volume as tiles: Siemens mosaics and UIH grids."""

import math
import struct
from collections.abc import Iterator

from medssl.archive.dicom import tags
from medssl.archive.dicom.record import Frame, Record, Vector
from medssl.archive.dicom.values import ElementValues
from medssl.archive.rejection import Rejected
from medssl.cohort.reasons import Reason

_CSA_ELEMENTS = ("NumberOfImagesInMosaic", "SliceNormalVector", "B_value")
_MAX_CSA_ITEMS = 1000


def mosaic_frames(header: ElementValues, record: Record, image: Frame) -> tuple[tuple[Frame, ...], int]:
    """Tiles of a Siemens mosaic as frames, and the tiles per row. Raises Rejected with BAD_MOSAIC.

    Args:
        header: Header of the file.
        record: Its record.
        image: The mosaic as a single frame.
    """
    # ImagePositionPatient places the mosaic such that its centre is the centre of each slice: the first voxel of a
    # slice lies half the difference of the two edge lengths further in. Slices follow the normal vector of the private
    # CSA header, which may point opposite to the normal that ImageOrientationPatient implies.
    csa = _csa(header.raw(tags.SIEMENS_CSA_IMAGE_HEADER))
    count = int(csa.get("NumberOfImagesInMosaic", [header.short(tags.SIEMENS_NUMBER_OF_IMAGES_IN_MOSAIC)])[0])
    normal = csa.get("SliceNormalVector", [])
    if count < 1 or len(normal) != 3:
        problem = f"the private header names {count} tiles and a normal of {len(normal)} numbers"
        raise Rejected(Reason.BAD_MOSAIC, problem)
    grid = _tiles_per_row(count, record, Reason.BAD_MOSAIC)
    position, orientation = image.position_mm, image.orientation
    spacing, step = image.pixel_spacing_mm, image.thickness_mm
    if position is None or orientation is None or spacing is None or not step:
        raise Rejected(Reason.NO_GEOMETRY, "position, orientation, pixel spacing or slice spacing is missing")
    right = (record.columns - record.columns // grid) / 2 * spacing[1]
    down = (record.rows - record.rows // grid) / 2 * spacing[0]
    first = [position[axis] + right * orientation[axis] + down * orientation[axis + 3] for axis in range(3)]
    b_value = csa["B_value"][0] if csa.get("B_value") else image.b_value
    # All fields but number, tile and position_mm: _replace for each tile is slow.
    common = image._replace(b_value=b_value)[3:]
    frames = []
    for tile in range(count):
        x, y, z = (first[axis] + tile * step * normal[axis] for axis in range(3))
        frames.append(Frame(0, tile, (x, y, z), *common))
    return tuple(frames), grid


def uih_frames(header: ElementValues, record: Record, image: Frame) -> tuple[tuple[Frame, ...], int]:
    """Tiles of a UIH grid as frames, and the tiles per row. Raises Rejected with UIH_GRID."""
    count = header.integer(tags.UIH_NUMBER_OF_TILES) or 0
    items = header.items(tags.UIH_TILE_SEQUENCE)
    if count < 1 or len(items) != count:
        raise Rejected(Reason.UIH_GRID, f"{len(items)} tile descriptions for {count} tiles")
    grid = _tiles_per_row(count, record, Reason.UIH_GRID)
    frames = []
    for tile, item in enumerate(items):
        numbers = item.decimals(tags.IMAGE_POSITION_PATIENT)
        if len(numbers) != 3:
            raise Rejected(Reason.UIH_GRID, f"tile {tile} has no position")
        position: Vector = (numbers[0], numbers[1], numbers[2])
        cosines = item.decimals(tags.IMAGE_ORIENTATION_PATIENT)
        orientation = cosines if len(cosines) == 6 else image.orientation
        frames.append(image._replace(tile=tile, position_mm=position, orientation=orientation))
    return tuple(frames), grid


def _tiles_per_row(count: int, record: Record, reason: Reason) -> int:
    """Edge of the smallest square that holds `count` tiles, row by row."""
    grid = math.ceil(math.sqrt(count))
    if count > 4096 or record.rows % grid or record.columns % grid:
        raise Rejected(reason, f"{count} tiles do not divide an image of {record.columns} x {record.rows}")
    return grid


def _csa(raw: bytes) -> dict[str, list[float]]:
    """Numbers of the selected elements of a Siemens CSA header; empty if it cannot be read.

    The layout follows nibabel's description (doc/source/dicom/siemens_csa.rst). nibabel's own reader fails with
    assertions on damaged files, and builds an object for each of a hundred elements in every volume of a time series.
    """
    try:
        elements = {name: [float(text) for text in texts] for name, texts in _csa_elements(raw)}
    except (struct.error, ValueError):
        return {}
    return {name: numbers for name, numbers in elements.items() if numbers and all(map(math.isfinite, numbers))}


def _csa_elements(raw: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Names and texts of the selected elements. Raises struct.error or ValueError if the header is not valid."""
    # An element has a name, a number of values and a number of items; an item has four numbers and a text, padded to
    # four bytes. The second number is the length of the text. Before software version VB it was the first number,
    # minus the number of items of the second element.
    newer = raw.startswith(b"SV10")
    position, excess = (16, 0) if newer else (8, 0)
    n_elements = int(struct.unpack_from("<I", raw, position - 8)[0])
    if n_elements > _MAX_CSA_ITEMS:
        raise ValueError(f"{n_elements} elements")
    for number in range(n_elements):
        n_values, n_items = struct.unpack_from("<64xi8xi", raw, position)
        name = raw[position : position + 64].split(b"\0", 1)[0].decode("latin-1")
        position += 84
        if number == 1 and not newer:
            excess = n_items
        if n_items > _MAX_CSA_ITEMS:
            raise ValueError(f"{n_items} items in an element")
        texts = []
        for _ in range(n_items):
            first, second = struct.unpack_from("<ii", raw, position)
            length = second if newer else first - excess
            position += 16
            if length < 0 or position + length > len(raw):
                if newer:
                    raise ValueError("an item longer than the header")
                break
            texts.append(raw[position : position + length].split(b"\0", 1)[0].strip())
            position += length + -length % 4
        if name in _CSA_ELEMENTS:
            texts = texts[: n_values or n_items]
            yield name, texts[: texts.index(b"")] if b"" in texts else texts
