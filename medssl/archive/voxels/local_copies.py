"""What one scan needs from elsewhere, copied beside the work: into files without a name, gone when the work is."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

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
# Descriptors that the process needs for itself.
_OTHER_DESCRIPTORS = 64


@contextmanager
def local_copies(needed: T, *, limits: Limits) -> Iterator[T]:
    """The same source of a scan with every file on disk: those from archives and servers as nameless copies.

    No copy outlives the process, not even one that is killed. Raises Rejected: IN_FLUX when a file is not as it was
    when its header was read, TOO_LARGE, and what the source raises.
    """
    far = {file.path: file for file in _files(needed) if not is_on_disk(Path(file.path))}
    if not far:
        yield needed
        return
    expected = sum(file.size for file in far.values())
    if expected > limits.copied_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{expected} bytes to copy, above {limits.copied_bytes}")
    _allow_descriptors(len(far))
    with ExitStack() as stack:
        copies = {}
        for paths in _by_source(far):
            with open_source(paths[0], limits) as source:
                for copy in source.contents(paths):
                    copies[os.fspath(copy.path)] = _kept(copy, far[os.fspath(copy.path)], stack)
        yield _replaced(needed, copies, limits)


def _by_source(far: Mapping[str, StampedFile]) -> list[list[Path]]:
    """The paths of each container and each server."""
    groups: dict[Path | Location | None, list[Path]] = {}
    for path in map(Path, far):
        location = Location.parse(path)
        groups.setdefault(location.root if location else container_of(path), []).append(path)
    return list(groups.values())


def _kept(copy: FileContent, before: StampedFile, stack: ExitStack) -> StampedFile:
    """A copy in a file without a name, reached through its descriptor."""
    if copy.stamp != FileStamp(before.size, before.mtime_ns):
        raise Rejected(Reason.IN_FLUX, "the file has changed since its header was read")
    try:
        file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the stack
        for piece in copy.chunks:
            file.write(piece)
        file.flush()
        facts = os.fstat(file.fileno())
    except OSError as error:
        raise Rejected(Reason.IO_ERROR, f"it cannot be copied beside the work ({error.strerror})") from error
    return StampedFile(f"/dev/fd/{file.fileno()}", facts.st_size, facts.st_mtime_ns)


def _as_it_is(file: DicomFile, copy: StampedFile, limits: Limits) -> DicomFile:
    """A file whose header was made of a server's metadata, with the layout that its own header says."""
    path = Path(copy.path)
    found = scan_file(path, path.parent, FileStamp(copy.size, copy.mtime_ns), limits=limits)
    if found.kind != "dicom":
        raise Rejected(found.reason or Reason.BAD_HEADER, found.detail or "the instance is no image")
    record = parse_record(found.record or "")
    if record.reason:
        raise Rejected(Reason(record.reason), record.detail)
    before = file.layout
    layout = replace(before, **{field.name: getattr(record, field.name) for field in fields(before)})
    same_grid = (layout.rows, layout.columns, layout.n_frames) == (before.rows, before.columns, before.n_frames)
    if record.instance != Path(file.file.path).name or not same_grid:
        raise Rejected(Reason.IN_FLUX, "the server gives another instance than its metadata tell of")
    return replace(file, file=copy, layout=layout, pixel_at=record.pixel_at)


def _is_dicomweb(file: StampedFile) -> bool:
    location = Location.parse(file.path)
    return location is not None and location.is_dicomweb


def _allow_descriptors(count: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise Rejected(Reason.TOO_LARGE, f"{count} files, more than this system lets one process open")
    if needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _files(value: Any) -> Iterator[StampedFile]:
    """Every file in the description of a scan's source."""
    if isinstance(value, StampedFile):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _files(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _files(item)


def _replaced(value: Any, copies: Mapping[str, StampedFile], limits: Limits) -> Any:
    """The same description with some files elsewhere."""
    if isinstance(value, StampedFile):
        return copies.get(value.path, value)
    if isinstance(value, DicomFile) and value.file.path in copies and _is_dicomweb(value.file):
        return _as_it_is(value, copies[value.file.path], limits)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: _replaced(getattr(value, field.name), copies, limits) for field in fields(value)}
        return replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(_replaced(item, copies, limits) for item in value)
    return value
