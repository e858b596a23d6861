"""A DICOMweb server as a source: listed by QIDO-RS, headers from WADO-RS metadata, instances when they are loaded.

PS3.18, 10.4 (retrieve) and 10.6 (search). Credentials come from MEDSSL_DICOMWEB_TOKEN, from MEDSSL_DICOMWEB_USER and
MEDSSL_DICOMWEB_PASSWORD, or from netrc, and are written nowhere.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from medssl.archive.dicom.json_header import NotTold, header_bytes
from medssl.archive.dicom.uids import LABELS
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.sources.network import T, with_retries
from medssl.archive.sources.source import FileContent, HeadReader, url_of
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason
from medssl.errors import DataError, UsageError

_PAGE = 100
_PIECE = 1 << 20
_IN_MEMORY = 1 << 25
_UID = re.compile(r"[0-9.]{1,64}")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_JSON = {"Accept": "application/dicom+json"}
# As it is stored: servers that recompress on the way change voxels or fail.
_FILES = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
# What the server will not do for this instance, however often it is asked.
_REFUSED = range(400, 500)
_TRY_AGAIN = (408, 429)


@contextmanager
def open_server(path: Path, limits: Limits) -> Iterator["DicomWeb"]:
    """The server that a place lies on. Raises UsageError when httpx is missing or the URL holds a password."""
    try:
        import httpx
    except ImportError as error:
        raise UsageError("DICOMweb needs httpx. Install it with: pip install 'medssl[remote]'.") from error
    if "@" in path.parts[1]:
        raise UsageError(
            "the URL of the server holds a user or password, which would be written down. "
            "Put them into MEDSSL_DICOMWEB_USER and MEDSSL_DICOMWEB_PASSWORD, or into netrc."
        )
    parts = path.parts[: path.parts.index("studies")] if "studies" in path.parts else path.parts
    timeout = httpx.Timeout(60.0, connect=10.0)
    with httpx.Client(timeout=timeout, auth=_auth(), headers=_token()) as client:
        yield DicomWeb(client, Path(*parts), path, limits)


class DicomWeb:
    """Instances of one server, or of one study or series of it.

    The standard has no mark of a change: an instance is known by its UID, and one that was replaced under the same
    UID is not seen as new. Sizes are not told either.
    """

    def __init__(self, client: Any, server: Path, root: Path, limits: Limits) -> None:
        self._client, self._server, self._root, self._limits = client, server, root, limits
        self._url = url_of(server).removeprefix("dicomweb+")

    def folders(self) -> Iterator[Folder]:
        """As `Source`: one for each series. Raises DataError when there is none or the server does not answer."""
        asked_for = self._root.parts[len(self._server.parts) :]
        studies = [asked_for[1]] if len(asked_for) > 1 else self._search("studies", _STUDY)
        empty = True
        for study in studies:
            some = [asked_for[3]] if len(asked_for) > 3 else self._search(f"studies/{study}/series", _SERIES)
            for series in some:
                place = f"studies/{study}/series/{series}/instances"
                empty = False
                yield Folder(Path(self._server, place), dict.fromkeys(self._search(place, _INSTANCE), FileStamp(0, 0)))
        if empty:
            raise DataError(f"{self._url} lists no series. Check the URL: it ends where /studies would follow.")

    def starts(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """As `Source`: a header made of the metadata; the first bytes of the instance where that does not do."""
        for path in paths:
            yield path, self._start(path)

    def copies(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """As `Source`."""
        for path in paths:
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
                self._ask(partial(self._retrieve, path, file, self._limits.copied_bytes))
                file.seek(0)
                yield FileContent(path, FileStamp(0, 0), iter(partial(file.read, _PIECE), b""))

    def _start(self, path: Path) -> HeadReader:
        made: bytes | None = None

        def read(count: int) -> bytes:
            nonlocal made
            if made is None:
                made = self._ask(partial(self._metadata, path))
            if made:
                return made[:count]
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
                self._ask(partial(self._retrieve, path, file, count, whole=False))
                file.seek(0)
                return file.read(count)

        return read

    def _metadata(self, path: Path) -> bytes:
        """A header made of the metadata of an instance; nothing where they do not tell what is needed."""
        told = self._json(f"{self._address(path)}/metadata")
        if len(told) != 1:
            raise ValueError(f"metadata of {len(told)} instances instead of one")
        words = [
            str(word).upper()
            for name in ("00080008", "00080016", "00080070")
            for word in told[0].get(name, {}).get("Value", [])
        ]
        # Geometry in private elements, of which metadata have few; labels, which need elements of their own.
        if LABELS & set(words) or "MOSAIC" in words or any("UIH" in word or "UNITED IMAGING" in word for word in words):
            return b""
        try:
            return header_bytes(told[0])
        except NotTold:
            return b""

    def _retrieve(
        self, path: Path, file: tempfile.SpooledTemporaryFile[bytes], most: int, *, whole: bool = True
    ) -> None:
        """An instance into a file; with `whole` false only its first `most` bytes."""
        file.seek(0)
        file.truncate()
        with self._client.stream("GET", self._address(path), headers=_FILES) as answer:
            _check(answer)
            for piece in only_part(answer.headers.get("content-type", ""), answer.iter_bytes(_PIECE)):
                file.write(piece)
                if file.tell() >= most and not whole:
                    return
                if file.tell() > most:
                    raise Rejected(Reason.TOO_LARGE, f"more than {most} bytes")

    def _search(self, place: str, tag: str) -> list[str]:
        """UIDs that the server lists, page by page until a page brings nothing new."""
        found: dict[str, None] = {}
        while True:
            query = f"{self._url}/{place}?limit={_PAGE}&offset={len(found)}"
            page = [_uid(item, tag) for item in self._ask(partial(self._json, query), listing=True)]
            fresh = [uid for uid in page if uid not in found]
            found |= dict.fromkeys(fresh)
            if (len(page) < _PAGE and found) or not fresh:
                return sorted(found)

    def _json(self, url: str) -> list[dict[str, Any]]:
        answer = self._client.get(url, headers=_JSON)
        if answer.status_code == 204:  # nothing matches
            return []
        _check(answer)
        if "json" not in answer.headers.get("content-type", ""):
            raise ValueError("the answer is not JSON")
        told = answer.json()
        if not isinstance(told, list) or not all(isinstance(item, dict) for item in told):
            raise ValueError("the answer is no list")
        return told

    def _ask(self, call: Callable[[], T], *, listing: bool = False) -> T:
        """As `asked`; what cannot be listed ends the ingest."""

        def alive() -> object:
            return self._client.get(f"{self._url}/studies?limit=1", headers=_JSON).raise_for_status()

        try:
            return with_retries(call, alive=alive, server=self._url)
        except Rejected as rejected:
            if not listing:
                raise
            raise DataError(
                f"{self._url} does not list what it holds: {rejected.detail}. Check the URL and the credentials, "
                "then run the same command again: it continues where it stopped."
            ) from rejected

    def _address(self, path: Path) -> str:
        return f"{self._url}/{path.relative_to(self._server)}"


def _check(answer: Any) -> None:
    """Raise for an answer that is no success: PermissionError and the like where it is final."""
    if answer.status_code in _REFUSED and answer.status_code not in _TRY_AGAIN:
        raise Rejected(Reason.IO_ERROR, f"the server answers {answer.status_code}")
    if answer.status_code != 200:
        raise ValueError(f"the server answers {answer.status_code}")


def _uid(item: dict[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value", [])
    if len(values) != 1 or not _UID.fullmatch(str(values[0])):
        raise DataError(f"the server lists something without a proper UID in ({tag}). Report it to its vendor.")
    return str(values[0])


def _auth() -> Any:
    import httpx

    user, password = os.environ.get("MEDSSL_DICOMWEB_USER"), os.environ.get("MEDSSL_DICOMWEB_PASSWORD")
    if user and password is not None:
        return httpx.BasicAuth(user, password)
    netrc = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    return httpx.NetRCAuth(str(netrc)) if netrc.is_file() and not _token() else None


def _token() -> dict[str, str]:
    token = os.environ.get("MEDSSL_DICOMWEB_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


_LONGEST_HEAD = 1 << 16


def only_part(content_type: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of the first part. Raises ValueError when the answer holds none, or ends within it."""
    kind = content_type.lower()
    if kind.startswith("application/dicom") and "json" not in kind:
        yield from chunks  # a single file, as some servers answer
        return
    found = re.search(r'boundary="?([^";,]{1,200})"?', content_type, re.IGNORECASE)
    if not kind.startswith("multipart/related") or found is None:
        raise ValueError("the answer holds no DICOM file")
    end = b"\r\n--" + found[1].strip().encode()
    stream = iter(chunks)
    rest = _behind_head(stream, end)
    while (place := rest.find(end)) < 0:
        # The boundary may lie across two pieces.
        if len(rest) > len(end):
            yield rest[: -len(end)]
            rest = rest[-len(end) :]
        piece = next(stream, b"")
        if not piece:
            raise ValueError("the answer breaks off")
        rest += piece
    yield rest[:place]


def _behind_head(stream: Iterator[bytes], end: bytes) -> bytes:
    """What was read behind the first boundary and the part's own header."""
    start = b"\r\n"
    while True:
        first = start.find(end)
        head = start.find(b"\r\n\r\n", first + len(end)) if first >= 0 else -1
        if head >= 0:
            return start[head + 4 :]
        piece = next(stream, b"")
        if not piece or len(start) > _LONGEST_HEAD + (1 << 20):
            raise ValueError("the answer holds no part")
        start += piece
