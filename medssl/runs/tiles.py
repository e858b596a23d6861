"""Single tiles of a contact sheet: grey values, errors and labels as uint8 colours."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.generic]

_NOT_FINITE = (255, 0, 255)
# Okabe and Ito 2008, "Color Universal Design": told apart by colour-blind readers. Their black is left out.
_LABELS = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [0, 114, 178], [204, 121, 167]],
    dtype=np.float64,
)
_LABEL_OPACITY = 0.55
# Black, violet, red, orange, pale yellow: lightness rises all the way, so it also reads in grey.
_ERROR_RAMP = np.array([[0, 0, 0], [72, 16, 110], [178, 36, 80], [240, 120, 30], [252, 246, 180]], dtype=np.float64)


def grey(cut: Array, low: float, high: float) -> Pixels:
    """(h, w, 3): `low` and below black, `high` and above white; values that are not finite magenta."""
    values = cut.astype(np.float64)
    finite = np.isfinite(values)
    shares = np.clip((np.where(finite, values, low) - low) / (high - low), 0.0, 1.0)
    pixels = np.repeat(np.rint(shares * 255).astype(np.uint8)[..., None], 3, axis=2)
    pixels[~finite] = _NOT_FINITE
    return pixels


def colour_errors(cut: Array, largest: float) -> Pixels:
    """(h, w, 3): |error| from 0 (black) to `largest` and above (pale yellow); values that are not finite magenta."""
    values = np.abs(cut.astype(np.float64))
    finite = np.isfinite(values)
    place = np.clip(np.where(finite, values, 0.0) / largest, 0.0, 1.0) * (len(_ERROR_RAMP) - 1)
    stops = np.arange(len(_ERROR_RAMP))
    pixels = np.stack([np.rint(np.interp(place, stops, ramp)) for ramp in _ERROR_RAMP.T], axis=-1).astype(np.uint8)
    pixels[~finite] = _NOT_FINITE
    return pixels


def colour_labels(cut: Array, under: Pixels) -> Pixels:
    """(h, w, 3): `under` with every label in its colour; label n has the same colour in every sheet, 0 has none."""
    labels = cut.astype(np.int64)
    # A mask (bool) has a colour that only the seventh label shares: what was hidden is no class.
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
