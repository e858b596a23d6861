"""PNG files of a run: pictures/<key>/<step>.png."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medssl.files import explain_write_errors, write_bytes

_KEY = re.compile(r"[\w][\w .:-]*(/[\w][\w .:-]*)*")


@dataclass(frozen=True, order=True)
class Picture:
    """One PNG of a run. key: what it shows, such as 'case-01/reconstruction'; step: when."""

    key: str
    step: int
    path: Path


def picture_path(folder: Path, key: str, step: int) -> Path:
    """Where the picture of `key` at `step` lies. ValueError for a key that would leave the folder."""
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"picture key {key!r}: use letters, digits, '_', '-', '.', ':' and spaces, with '/' between parts"
        )
    return folder / key / f"{step:07d}.png"


def write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 pixels; DataError when the disk is full."""
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        # Windowing belongs to the caller: rescaling here would make two steps incomparable.
        raise ValueError(f"a picture is (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, format="PNG")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())


def list_pictures(folder: Path) -> list[Picture]:
    """Every <key>/<step>.png below `folder`, by key and step."""
    paths = [path for path in folder.rglob("*.png") if path.stem.isdigit()]  # half-written files start with a dot
    return sorted(Picture(path.parent.relative_to(folder).as_posix(), int(path.stem), path) for path in paths)
