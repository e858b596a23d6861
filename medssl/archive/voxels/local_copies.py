"""Temporary local copies of the files that a scan needs from containers and servers.

The copies have no name in the file system, so they disappear with the process.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from medssl.archive.dicom.pixels import PixelFormat
from medssl.archive.dicom.record import parse_record
from medssl.archive.index.load_plan import DicomFile, StampedFile
from medssl.archive.limits import Limits
from medssl.archive.rejection import Rejected
from medssl.archive.scan.recognise import scan_file
from medssl.archive.sources.location import Location, container_of, is_on_disk
from medssl.archive.sources.open import open_source
from medssl.archive.sources.source import FileContent
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.reasons import Reason

T = TypeVar("T")
# File descriptors that the process needs besides the copies.
_OTHER_DESCRIPTORS = 64


@contextmanager
def local_copies(plan: T, *, limits: Limits) -> Iterator[T]:
    """The same load plan with every file on disk: files in containers and on servers are copied.

    No copy outlives the process, even if the process is killed.

    Raises:
        Rejected: IN_FLUX if a file has changed since its header was read, TOO_LARGE, or why a source cannot be read.
    """
    remote = {file.path: file for file in _files(plan) if not is_on_disk(Path(file.path))}
    if not remote:
        yield plan
        return
    expected = sum(file.size for file in remote.values())
    if expected > limits.copied_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{expected} bytes to copy, above {limits.copied_bytes}")
    _allow_descriptors(len(remote))
    with ExitStack() as stack:
        copies = {}
        for paths in _by_source(remote):
            with open_source(paths[0], limits) as source:
                for content in source.contents(paths):
                    path = os.fspath(content.path)
                    copies[path] = _copy(content, remote[path], stack)
        yield _replaced(plan, copies, limits)


def _by_source(remote: Mapping[str, StampedFile]) -> list[list[Path]]:
    """The paths of each container and each server."""
    groups: dict[Path | Location | None, list[Path]] = {}
    for path in map(Path, remote):
        location = Location.parse(path)
        groups.setdefault(location.root if location else container_of(path), []).append(path)
    return list(groups.values())


def _copy(content: FileContent, planned: StampedFile, stack: ExitStack) -> StampedFile:
    """A copy in a file without a name; its path names the descriptor."""
    if content.stamp != FileStamp(planned.size, planned.mtime_ns):
        raise Rejected(Reason.IN_FLUX, "the file has changed since its header was read")
    try:
        file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the stack
        for chunk in content.chunks:
            file.write(chunk)
        file.flush()
        status = os.fstat(file.fileno())
    except OSError as error:
        raise Rejected(
            Reason.IO_ERROR, f"the file cannot be copied to {tempfile.gettempdir()} ({error.strerror})"
        ) from error
    return StampedFile(f"/dev/fd/{file.fileno()}", status.st_size, status.st_mtime_ns)


def _with_actual_layout(file: DicomFile, copy: StampedFile, limits: Limits) -> DicomFile:
    """A file whose header came from a server's metadata, with the pixel layout of the file itself."""
    path = Path(copy.path)
    scanned = scan_file(path, path.parent, FileStamp(copy.size, copy.mtime_ns), limits=limits)
    if scanned.kind != "dicom":
        raise Rejected(scanned.reason or Reason.BAD_HEADER, scanned.detail or "the instance is not an image")
    record = parse_record(scanned.record or "")
    if record.reason:
        raise Rejected(Reason(record.reason), record.detail)
    planned, layout = file.layout, PixelFormat.of(record)
    same_shape = (layout.rows, layout.columns, layout.n_frames) == (planned.rows, planned.columns, planned.n_frames)
    if record.instance != Path(file.file.path).name or not same_shape:
        raise Rejected(Reason.IN_FLUX, "the server returned another instance than its metadata describe")
    return replace(file, file=copy, layout=layout, pixel_at=record.pixel_at)


def _is_dicomweb(file: StampedFile) -> bool:
    location = Location.parse(file.path)
    return location is not None and location.is_dicomweb


def _allow_descriptors(count: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise Rejected(Reason.TOO_LARGE, f"{count} files, above the {hard} that one process may open")
    if needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _files(value: Any) -> Iterator[StampedFile]:
    """Every file in a load plan."""
    if isinstance(value, StampedFile):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _files(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _files(item)


def _replaced(value: Any, copies: Mapping[str, StampedFile], limits: Limits) -> Any:
    """The load plan with files replaced by their copies."""
    if isinstance(value, StampedFile):
        return copies.get(value.path, value)
    if isinstance(value, DicomFile) and value.file.path in copies and _is_dicomweb(value.file):
        return _with_actual_layout(value, copies[value.file.path], limits)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: _replaced(getattr(value, field.name), copies, limits) for field in fields(value)}
        return replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(_replaced(item, copies, limits) for item in value)
    return value
