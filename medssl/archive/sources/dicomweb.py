"""A DICOMweb server as a source: listed by QIDO-RS, headers from WADO-RS metadata, instances when they are loaded.

PS3.18, 10.4 (retrieve) and 10.6 (search). Credentials come from MEDSSL_DICOMWEB_TOKEN, from MEDSSL_DICOMWEB_USER and
MEDSSL_DICOMWEB_PASSWORD, or from netrc. medssl writes them nowhere.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from medssl.archive.dicom.json_header import IncompleteHeader, header_bytes
from medssl.archive.dicom.uids import LABELS
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.sources.location import Location
from medssl.archive.sources.network import T, with_retries
from medssl.archive.sources.source import FileContent, HeadReader
from medssl.archive.sources.walk import FileStamp, Folder
from medssl.cohort.reasons import Reason
from medssl.errors import DataError, UsageError

_PAGE = 100
_CHUNK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 1 << 25
_MAX_PART_HEADER_BYTES = 1 << 16
_UID = re.compile(r"[0-9.]{1,64}")
_STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID, _SOP_INSTANCE_UID = "0020000D", "0020000E", "00080018"
_IMAGE_TYPE, _SOP_CLASS_UID, _MANUFACTURER = "00080008", "00080016", "00080070"
_JSON = {"Accept": "application/dicom+json"}
# As stored: servers that transcode on the way change voxels or fail.
_AS_STORED = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
# Statuses with which a server refuses this instance for good, and those among them that may pass.
_REFUSED = range(400, 500)
_TRY_AGAIN = (408, 429)

TempFile: TypeAlias = tempfile.SpooledTemporaryFile[bytes]


@contextmanager
def open_server(location: Location, limits: Limits) -> Iterator["DicomWeb"]:
    """The server at a location. Raises UsageError when httpx is missing or the URL holds a password."""
    try:
        import httpx
    except ImportError as error:
        raise UsageError("DICOMweb needs httpx. Install it with: pip install 'medssl[remote]'.") from error
    if "@" in location.server:
        raise UsageError(
            "the URL of the server holds a user or password, which would be written down. "
            "Put them into MEDSSL_DICOMWEB_USER and MEDSSL_DICOMWEB_PASSWORD, or into netrc."
        )
    timeout = httpx.Timeout(60.0, connect=10.0)
    with httpx.Client(timeout=timeout, auth=_auth(), headers=_token()) as client:
        yield DicomWeb(client, location, limits)


class DicomWeb:
    """Instances of one server, or of one study or series of it.

    The standard marks neither changes nor sizes. An instance is known by its UID, and one that was replaced under the
    same UID does not count as new.

    Args:
        client: An httpx.Client.
        location: Of the server (as far as /studies), or of a study, series or instance below it.
        limits: Of which `copied_bytes` is used.
    """

    def __init__(self, client: Any, location: Location, limits: Limits) -> None:
        depth = location.key.index("studies") if "studies" in location.key else len(location.key)
        server = replace(location, key=location.key[:depth])
        self._client, self._server, self._limits = client, server.path, limits
        self._scope = location.key[depth:]  # studies/UID/series/UID, as far as the user named them
        self._url = server.url.removeprefix("dicomweb+")

    def folders(self) -> Iterator[Folder]:
        """See `FileSource`: one for each series. Raises DataError when there is none or the server does not answer."""
        empty = True
        studies = self._scope[1:2] or self._search("studies", _STUDY_INSTANCE_UID)
        for study in studies:
            for series in self._scope[3:4] or self._search(f"studies/{study}/series", _SERIES_INSTANCE_UID):
                resource = f"studies/{study}/series/{series}/instances"
                instances = self._search(resource, _SOP_INSTANCE_UID)
                empty = False
                yield Folder(self._server / resource, dict.fromkeys(instances, FileStamp(0, 0)))
        if empty:
            raise DataError(f"{self._url} lists no series. Check the URL: it ends where /studies would follow.")

    def headers(self, paths: Sequence[Path]) -> Iterator[tuple[Path, HeadReader]]:
        """See `FileSource`: headers made of the metadata, or the instance's first bytes where that is not enough."""
        for path in paths:
            yield path, self._head_reader(path)

    def contents(self, paths: Sequence[Path]) -> Iterator[FileContent]:
        """See `FileSource`."""
        for path in paths:
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
                self._request(partial(self._retrieve, path, file, self._limits.copied_bytes))
                file.seek(0)
                yield FileContent(path, FileStamp(0, 0), iter(partial(file.read, _CHUNK_BYTES), b""))

    def _head_reader(self, path: Path) -> HeadReader:
        header: bytes | None = None

        def read_head(count: int) -> bytes:
            nonlocal header
            if header is None:
                header = self._request(partial(self._header_from_metadata, path))
            if header:
                return header[:count]
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
                self._request(partial(self._retrieve, path, file, count, truncate=True))
                file.seek(0)
                return file.read(count)

        return read_head

    def _header_from_metadata(self, path: Path) -> bytes:
        """A header made of an instance's metadata; empty where the metadata lack what is needed."""
        instances = self._json(f"{self._instance_url(path)}/metadata")
        if len(instances) != 1:
            raise ValueError(f"metadata of {len(instances)} instances instead of one")
        metadata = instances[0]
        words = [
            str(word).upper()
            for tag in (_IMAGE_TYPE, _SOP_CLASS_UID, _MANUFACTURER)
            for word in metadata.get(tag, {}).get("Value", [])
        ]
        # Mosaics and UIH grids keep their geometry in private elements, which servers leave out of metadata; label
        # objects need elements of their own.
        if LABELS & set(words) or "MOSAIC" in words or any("UIH" in word or "UNITED IMAGING" in word for word in words):
            return b""
        try:
            return header_bytes(metadata)
        except IncompleteHeader:
            return b""

    def _retrieve(self, path: Path, file: TempFile, max_bytes: int, *, truncate: bool = False) -> None:
        """Write an instance into a file. Beyond `max_bytes` it is cut off with `truncate`, else rejected."""
        file.seek(0)
        file.truncate()
        with self._client.stream("GET", self._instance_url(path), headers=_AS_STORED) as response:
            _check(response)
            for chunk in first_part(response.headers.get("content-type", ""), response.iter_bytes(_CHUNK_BYTES)):
                file.write(chunk)
                if file.tell() >= max_bytes and truncate:
                    return
                if file.tell() > max_bytes:
                    raise Rejected(Reason.TOO_LARGE, f"more than {max_bytes} bytes")

    def _search(self, resource: str, tag: str) -> list[str]:
        """UIDs that the server lists, page by page until a page brings nothing new."""
        uids: dict[str, None] = {}
        while True:
            query = f"{self._url}/{resource}?limit={_PAGE}&offset={len(uids)}"
            page = [_uid(entry, tag) for entry in self._request(partial(self._json, query), listing=True)]
            new = [uid for uid in page if uid not in uids]
            uids |= dict.fromkeys(new)
            # A short page is the last one, except an empty first one; servers that ignore `offset` repeat themselves.
            if (len(page) < _PAGE and uids) or not new:
                return sorted(uids)

    def _json(self, url: str) -> list[dict[str, Any]]:
        response = self._client.get(url, headers=_JSON)
        if response.status_code == 204:  # nothing matches
            return []
        _check(response)
        if "json" not in response.headers.get("content-type", ""):
            raise ValueError("the response is not JSON")
        entries = response.json()
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("the response is not a list of objects")
        return entries

    def _request(self, request: Callable[[], T], *, listing: bool = False) -> T:
        """See `with_retries`. A listing that fails ends the ingest."""

        def ping() -> object:
            return self._client.get(f"{self._url}/studies?limit=1", headers=_JSON).raise_for_status()

        try:
            return with_retries(request, ping=ping, server=self._url)
        except Rejected as rejected:
            if not listing:
                raise
            raise DataError(
                f"{self._url} does not list its content: {rejected.detail}. Check the URL and the credentials, "
                "then run the same command again: it continues where it stopped."
            ) from rejected

    def _instance_url(self, path: Path) -> str:
        return f"{self._url}/{path.relative_to(self._server)}"


def _check(response: Any) -> None:
    """Raise Rejected for a final refusal, ValueError for any other status than 200."""
    problem = f"the server answers {response.status_code}"
    if response.status_code in _REFUSED and response.status_code not in _TRY_AGAIN:
        raise Rejected(Reason.IO_ERROR, problem)
    if response.status_code != 200:
        raise ValueError(problem)


def _uid(entry: dict[str, Any], tag: str) -> str:
    values = entry.get(tag, {}).get("Value", [])
    if len(values) != 1 or not _UID.fullmatch(str(values[0])):
        raise DataError(f"the server lists an entry without a valid UID in ({tag}). Report it to its vendor.")
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


def first_part(content_type: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of the first part of a multipart response, as it arrives (RFC 2046, 5.1).

    Raises ValueError when the response has no part, or ends within it.
    """
    media_type = content_type.lower()
    if media_type.startswith("application/dicom") and "json" not in media_type:
        yield from chunks  # a single file, as some servers send it
        return
    boundary = re.search(r'boundary="?([^";,]{1,200})"?', content_type, re.IGNORECASE)
    if not media_type.startswith("multipart/related") or boundary is None:
        raise ValueError("the response holds no DICOM file")
    delimiter = b"\r\n--" + boundary[1].strip().encode()
    stream = iter(chunks)
    buffer = _skip_part_header(stream, delimiter)
    while (end := buffer.find(delimiter)) < 0:
        # The delimiter may lie across two chunks, so its length stays in the buffer.
        if len(buffer) > len(delimiter):
            yield buffer[: -len(delimiter)]
            buffer = buffer[-len(delimiter) :]
        chunk = next(stream, b"")
        if not chunk:
            raise ValueError("the response ends within its first part")
        buffer += chunk
    yield buffer[:end]


def _skip_part_header(stream: Iterator[bytes], delimiter: bytes) -> bytes:
    """What was read beyond the first delimiter and the header of its part."""
    buffer = b"\r\n"  # the first delimiter may begin the body
    while True:
        first = buffer.find(delimiter)
        header_end = buffer.find(b"\r\n\r\n", first + len(delimiter)) if first >= 0 else -1
        if header_end >= 0:
            return buffer[header_end + 4 :]
        chunk = next(stream, b"")
        if not chunk or len(buffer) > _MAX_PART_HEADER_BYTES + _CHUNK_BYTES:
            raise ValueError("the response holds no part")
        buffer += chunk
