"""Contact sheets: what a person looks at to see whether the network learned.

A sheet is uint8 with one intensity window per case, so that two columns, and two steps of one case, can be compared.

From top to bottom: the sheet and its layout, slices through a volume, their colours, and the size of a tile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import ImageFont


Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.generic]
_BACKGROUND, _TEXT, _FAINT = (18, 19, 22), (236, 236, 238), (150, 152, 158)
_GAP, _MARGIN, _TITLE_HEIGHT, _SIDE_WIDTH = 6, 14, 26, 92

PLANES = ("axial", "coronal", "sagittal")

_NOT_FINITE = (255, 0, 255)
# Okabe and Ito 2008, "Color Universal Design": told apart by colour-blind readers. Their black is left out.
_LABELS = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [0, 114, 178], [204, 121, 167]],
    dtype=np.float64,
)
_LABEL_OPACITY = 0.55
# Black, violet, red, orange, pale yellow: lightness rises all the way, so it also reads in grey.
_ERROR_RAMP = np.array([[0, 0, 0], [72, 16, 110], [178, 36, 80], [240, 120, 30], [252, 246, 180]], dtype=np.float64)


def contact_sheet(
    rows: Sequence[Mapping[str, Array]],
    *,
    window: tuple[float, float] | None = None,
    labels: Sequence[str] | None = None,
    planes: Sequence[str] = ("axial",),
    tile_pixels: int = 192,
) -> Pixels:
    """A sheet with a row per case and plane, and a column per name.

    Voxels that are not finite are magenta.

    Args:
        rows: Per case, column name to (D, H, W) volume in RAS; the first column is the scan. Columns whose name starts
            with 'error' have a fixed colour map from 0 to half the window's width. bool and int columns are masks and
            labels: fixed colours over the scan.
        window: Values that are black and white, shared by all columns of a row; by default the 0.5 and 99.5 percentiles
            of the row's scan.
        labels: Name per case; 'case-01', 'case-02', ... by default.
        planes: Of 'axial', 'coronal', 'sagittal', shown as radiologists do (patient's right on the left). They cross
            in the largest cut of the first int column, else in the middle.
        tile_pixels: Longest edge of a tile in pixels; small volumes are enlarged by whole numbers, large ones are
            averaged down.

    Returns:
        (H, W, 3) uint8 pixels.
    """
    columns = _columns(rows)
    names = labels or [f"case-{number:02d}" for number in range(1, len(rows) + 1)]
    if len(names) != len(rows) or not set(planes) <= set(PLANES) or not planes:
        raise ValueError(f"{len(rows)} rows need as many labels (got {len(names)}) and planes out of {PLANES}")
    strips = [strip for row, name in zip(rows, names, strict=True) for strip in _strips(row, name, window, planes)]
    side = max(tile_pixels, 16)
    tiles = [
        {column: fit(tile, side, longest=strip.longest[column]) for column, tile in strip.tiles.items()}
        for strip in strips
    ]
    return _compose(strips, tiles, columns)


@dataclass(frozen=True)
class _Strip:
    """One line of the sheet: a case in one plane.

    Attributes:
        caption: Lines of text beside it.
        tiles: Per column (h, w, 3) uint8.
        longest: Per column the longest edge over the planes shown, so that all planes of a case have one scale.
    """

    caption: tuple[str, ...]
    tiles: Mapping[str, Pixels]
    longest: Mapping[str, int]


def _columns(rows: Sequence[Mapping[str, Array]]) -> list[str]:
    """All column names in order of first appearance; a case without one leaves its tile empty."""
    if not rows or not all(rows):
        raise ValueError("a contact sheet needs at least one case, and a scan in each")
    for row in rows:
        for name, volume in row.items():
            if volume.ndim != 3 or 0 in volume.shape:
                raise ValueError(f"column {name!r} is {volume.shape}, a contact sheet shows (D, H, W) volumes")
    return list(dict.fromkeys(name for row in rows for name in row))


def _strips(
    row: Mapping[str, Array], name: str, window: tuple[float, float] | None, planes: Sequence[str]
) -> list[_Strip]:
    scan = next(iter(row.values()))
    low, high = window or _window(scan)
    focus = _focus(row, scan.shape)
    range_text = f"{low:.3g} … {high:.3g}"
    longest = {
        column: max(max(plane_slice(volume, plane, focus).shape) for plane in planes) for column, volume in row.items()
    }
    strips = []
    for plane in planes:
        background = grey(plane_slice(scan, plane, focus), low, high)
        tiles = {column: _tile(column, volume, background, plane, focus, (low, high)) for column, volume in row.items()}
        strips.append(_Strip((name, plane, range_text), tiles, longest))
    return strips


def _tile(
    column: str, volume: Array, background: Pixels, plane: str, focus: tuple[float, ...], window: tuple[float, float]
) -> Pixels:
    cut = plane_slice(volume, plane, focus)
    low, high = window
    if volume.dtype.kind in "biu":
        # A label on another grid than the scan still shows its shape, on black.
        under = background if background.shape[:2] == cut.shape else np.zeros((*cut.shape, 3), np.uint8)
        return colour_labels(cut, under)
    if column.startswith("error"):
        return colour_errors(cut, (high - low) / 2)
    return grey(cut, low, high)


def _window(scan: Array) -> tuple[float, float]:
    values = scan[np.isfinite(scan)].astype(np.float64)
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    # A constant scan has no contrast to show; any window does.
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _focus(row: Mapping[str, Array], shape: tuple[int, ...]) -> tuple[float, ...]:
    """Where the planes cross, as fractions of the edges, so that volumes of other sizes are cut alike."""
    labels = next((volume for volume in row.values() if volume.dtype.kind in "iu" and volume.shape == shape), None)
    return focus_voxel(labels, shape)


def _shorten(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> str:
    """The text, cut so that neighbouring titles do not run into each other."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _compose(strips: Sequence[_Strip], tiles: Sequence[Mapping[str, Pixels]], columns: Sequence[str]) -> Pixels:
    from PIL import Image, ImageDraw, ImageFont

    width = max(tile.shape[1] for strip in tiles for tile in strip.values())
    # Equal tiles across the sheet; rows of flat planes keep their own height.
    heights = [max(tile.shape[0] for tile in strip.values()) for strip in tiles]
    total = (
        _MARGIN * 2 + _SIDE_WIDTH + len(columns) * (width + _GAP) - _GAP,
        _MARGIN * 2 + _TITLE_HEIGHT + sum(max(height, 48) + _GAP for height in heights) - _GAP,
    )
    sheet = Image.new("RGB", total, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    title, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for index, column in enumerate(columns):
        centre = _MARGIN + _SIDE_WIDTH + index * (width + _GAP) + width // 2
        draw.text((centre, _MARGIN + 8), _shorten(column, title, width), fill=_TEXT, font=title, anchor="mm")
    top = _MARGIN + _TITLE_HEIGHT
    for strip, row, height in zip(strips, tiles, heights, strict=True):
        for line, text in enumerate(strip.caption):
            draw.text((_MARGIN, top + 4 + 17 * line), text, fill=_FAINT if line else _TEXT, font=small)
        for index, column in enumerate(columns):
            if column in row:
                tile = row[column]
                x = _MARGIN + _SIDE_WIDTH + index * (width + _GAP) + (width - tile.shape[1]) // 2
                sheet.paste(Image.fromarray(tile), (x, top + (height - tile.shape[0]) // 2))
        top += max(height, 48) + _GAP
    return np.asarray(sheet)


def focus_voxel(labels: Array | None, shape: tuple[int, ...]) -> tuple[float, ...]:
    """Where the planes cross, as fractions (0 to 1) of the edges D, H, W.

    The centre of the voxel with the largest cut of `labels` (foreground: not 0) along each axis, else the middle of
    the volume.
    """
    if labels is None or not labels.any():
        return tuple((edge // 2 + 0.5) / edge for edge in shape)
    foreground = labels != 0
    counts = [foreground.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return tuple((int(count.argmax()) + 0.5) / len(count) for count in counts)


def plane_slice(volume: Array, plane: str, focus: tuple[float, ...]) -> Array:
    """2D slice of a (D, H, W) volume in RAS through `focus` (fractions of the edges).

    Axial: anterior up. Coronal: superior up. Both with the patient's right on the left. Sagittal: superior up,
    anterior left.
    """
    d, h, w = (min(int(fraction * edge), edge - 1) for fraction, edge in zip(focus, volume.shape, strict=True))
    if plane == "axial":
        return volume[d, ::-1, ::-1]
    if plane == "coronal":
        return volume[::-1, h, ::-1]
    return volume[::-1, ::-1, w]


def grey(cut: Array, low: float, high: float) -> Pixels:
    """(h, w, 3): `low` and below black, `high` and above white; values that are not finite magenta."""
    values = cut.astype(np.float64)
    finite = np.isfinite(values)
    fractions = np.clip((np.where(finite, values, low) - low) / (high - low), 0.0, 1.0)
    pixels = np.repeat(np.rint(fractions * 255).astype(np.uint8)[..., None], 3, axis=2)
    pixels[~finite] = _NOT_FINITE
    return pixels


def colour_errors(cut: Array, largest: float) -> Pixels:
    """(h, w, 3): |error| from 0 (black) to `largest` and above (pale yellow); values that are not finite magenta."""
    values = np.abs(cut.astype(np.float64))
    finite = np.isfinite(values)
    position = np.clip(np.where(finite, values, 0.0) / largest, 0.0, 1.0) * (len(_ERROR_RAMP) - 1)
    stops = np.arange(len(_ERROR_RAMP))
    pixels = np.stack([np.rint(np.interp(position, stops, ramp)) for ramp in _ERROR_RAMP.T], axis=-1).astype(np.uint8)
    pixels[~finite] = _NOT_FINITE
    return pixels


def colour_labels(cut: Array, under: Pixels) -> Pixels:
    """(h, w, 3): `under` with every label in its colour; label n has the same colour in every sheet, 0 has none."""
    labels = cut.astype(np.int64)
    # A mask (bool) has a colour that only the seventh label shares: a hidden voxel has no class.
    colours = _LABELS[(labels - 1) % len(_LABELS)] if cut.dtype != np.bool_ else _LABELS[-1]
    mixed = np.rint(under * (1 - _LABEL_OPACITY) + colours * _LABEL_OPACITY).astype(np.uint8)
    return np.where((labels != 0)[..., None], mixed, under)


def fit(tile: Pixels, side: int, *, longest: int) -> Pixels:
    """The tile at the scale that brings an edge of `longest` pixels as near to `side` as whole numbers allow.

    Small tiles are enlarged by repeating pixels, so that voxels stay visible; large ones are averaged down to `side`.
    """
    if longest <= side:
        factor = side // longest
        return tile.repeat(factor, axis=0).repeat(factor, axis=1)
    from PIL import Image

    height, width = (max(1, round(edge * side / longest)) for edge in tile.shape[:2])
    return np.asarray(Image.fromarray(tile).resize((width, height), Image.Resampling.BOX))
