"""Paths as text that every file format takes, and back.

Names on a disk are bytes. Python hands over those that are no UTF-8 as lone surrogates (PEP 383), which SQLite and
every encoder refuse; here they follow a mark from the end of the private use area, as does the mark itself.
"""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer

_MARK = "\U0010fffd"
_UNUSUAL = re.compile(f"[\ud800-\udfff{_MARK}]")
_MARKED = re.compile(f"{_MARK}([0-9a-f]{{6}})")


def path_text(path: str | os.PathLike[str]) -> str:
    """A path, or the name of a file, as text; most paths as they are."""
    return _UNUSUAL.sub(lambda match: f"{_MARK}{ord(match[0]):06x}", os.fspath(path))


def text_path(text: str) -> Path:
    """The path that `path_text` wrote."""
    return Path(_unmarked(text))


def _unmarked(text: str) -> str:
    return _MARKED.sub(lambda match: chr(int(match[1], 16)), text)


# A field of text that may hold bytes of a path: in JSON it is as `path_text` writes it.
PathText = Annotated[str, PlainSerializer(path_text), AfterValidator(_unmarked)]
