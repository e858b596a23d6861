"""Object stores through fsspec: the same scans as from a folder, little is fetched, and a store may fail."""

import socket
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from written_dicom import Series, random_voxels

from medssl.archive.index.database import read_index
from medssl.archive.sources import network
from medssl.cohort.manifest import read_manifest
from medssl.errors import DataError, UsageError


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Two series in a folder and in memory://archive/2020, and their closed forms. Slices are of 10 KB and more."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(network, "RETRY_PAUSES_S", (0.0, 0.0))
    series = [Series(random_voxels((80, 64, 6))), Series(random_voxels((72, 96, 7), seed=1), patient="P-2002")]
    for number, one in enumerate(series):
        one.write(tmp_path / "2020" / f"p{number}")
    (tmp_path / "2020" / "notes.txt").write_text("hello " * 40)
    (tmp_path / "2020" / "empty").touch()
    fsspec.filesystem("memory").put(str(tmp_path / "2020"), "/archive/2020", recursive=True)
    return tmp_path / "2020", series


def remote(url):
    """As the command line makes a path of it."""
    return Path(url)


def test_store_gives_the_scans_of_the_folder(tmp_path, run_ingest, stored):
    folder, series = stored
    run_ingest(folder, out=tmp_path / "from_folder")
    report = run_ingest(remote("memory://archive/2020"))
    assert (report.n_files, report.n_scans, report.reasons) == (15, 2, {"EMPTY_FILE": 1, "NOT_DICOM": 1})
    rows = [row for row in read_manifest(tmp_path / "cohort" / "manifest.parquet") if row.accepted]
    assert rows == [row for row in read_manifest(tmp_path / "from_folder" / "manifest.parquet") if row.accepted]
    found = sorted(np.round(row.affine_ras_mm, 4).tolist() for row in rows)
    assert found == sorted(np.round(one.affine_ras_mm.ravel(), 4).tolist() for one in series)
    assert run_ingest(remote("memory://archive/2020")).n_loaded == 0


def test_header_scan_fetches_first_bytes_only(run_ingest, stored, monkeypatch):
    fetched = []
    original = MemoryFileSystem.cat_file

    def counted(self, path, start=None, end=None, **options):
        content = original(self, path, start=start, end=end, **options)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    assert run_ingest(remote("memory://archive/2020"), dry_run=True).n_scans == 2
    assert len(fetched) == 15
    assert max(fetched) == 8192


def test_changed_object_is_reread_and_vanished_one_stays(run_ingest, stored):
    """The scan of a vanished object stays in the cohort."""
    run_ingest(remote("memory://archive/2020"))
    store = fsspec.filesystem("memory")
    store.rm("/archive/2020/p1", recursive=True)
    name = sorted(store.ls("/archive/2020/p0", detail=False))[0]
    store.pipe_file(name, store.cat_file(name) + b"\0\0")
    report = run_ingest(remote("memory://archive/2020"))
    assert (report.n_scans, report.n_loaded) == (2, 1)


def test_object_changed_after_header_is_in_flux(tmp_path, run_ingest, stored, monkeypatch):
    from medssl.archive.voxels import scan as load
    from medssl.archive.voxels.local_copies import local_copies

    store = fsspec.filesystem("memory")
    name = sorted(store.ls("/archive/2020/p0", detail=False))[0]

    def changed_first(source, *, limits):
        store.pipe_file(name, b"\0" * 20_000)
        return local_copies(source, limits=limits)

    monkeypatch.setattr(load, "local_copies", changed_first)
    report = run_ingest(remote("memory://archive/2020"))
    assert (report.n_scans, report.reasons["IN_FLUX"]) == (1, 1)


def failing(monkeypatch, *, fails):
    """A store of which the calls for which `fails(path)` holds time out; counts them."""
    calls = []
    for method in ("cat_file", "ls"):
        original = getattr(MemoryFileSystem, method)

        def broken(self, path, *given, original=original, **options):
            if fails(path, calls):
                calls.append(path)
                raise TimeoutError("timed out at Qvortrup")
            return original(self, path, *given, **options)

        monkeypatch.setattr(MemoryFileSystem, method, broken)
    return calls


def test_failing_object_is_rejected_after_retries(tmp_path, run_ingest, stored, monkeypatch):
    """A few attempts cost this object alone; the next run tries again."""
    with monkeypatch.context() as patch:
        calls = failing(patch, fails=lambda path, _: path.endswith("notes.txt"))
        report = run_ingest(remote("memory://archive/2020"))
        assert report.reasons == {"EMPTY_FILE": 1, "IO_ERROR": 1}
        assert len(calls) == 4  # once with many others, then three times alone
    with read_index(tmp_path / "cohort" / "private") as index:
        details = [file.detail for file in index.rejected_files()]
    assert not any("Qvortrup" in detail for detail in details)
    assert run_ingest(remote("memory://archive/2020")).reasons == {"EMPTY_FILE": 1, "NOT_DICOM": 1}


def test_single_failed_request_is_repeated(run_ingest, stored, monkeypatch):
    failing(monkeypatch, fails=lambda path, calls: calls.count(path) < 1)
    assert run_ingest(remote("memory://archive/2020")).n_scans == 2


def test_dead_store_ends_ingest_and_can_be_continued(tmp_path, run_ingest, stored, monkeypatch):
    """The ingest ends with one sentence, and the same command continues it."""
    run_ingest(remote("memory://archive/2020"), out=tmp_path / "whole")
    seen = []
    with monkeypatch.context() as patch:
        failing(patch, fails=lambda path, calls: seen.append(path) or len(seen) > 30)
        with pytest.raises(DataError, match=r"memory://archive does not answer \(TimeoutError\).*continues"):
            run_ingest(remote("memory://archive/2020"))
    run_ingest(remote("memory://archive/2020"))
    assert read_manifest(tmp_path / "cohort" / "manifest.parquet") == read_manifest(
        tmp_path / "whole" / "manifest.parquet"
    )


def test_urls_and_keys_stay_in_the_private_folder(tmp_path, run_ingest, stored):
    store = fsspec.filesystem("memory")
    store.cp("/archive/2020", "/Zebulon/Xenobia", recursive=True)
    run_ingest(remote("memory://Zebulon/Xenobia"))
    public = [path for path in (tmp_path / "cohort").rglob("*") if path.is_file() and "private" not in path.parts]
    assert public
    for name in (b"Zebulon", b"Xenobia", b"memory:", b"notes"):
        assert not [path for path in public if name in path.read_bytes()]


def test_invalid_sources_have_clear_errors(run_ingest, stored, monkeypatch):
    with pytest.raises(UsageError, match="gopher9:// is not a known kind of source"):
        run_ingest(remote("gopher9://archive"))
    fsspec.filesystem("memory").makedirs("/void")
    with pytest.raises(DataError, match="holds no object"):
        run_ingest(remote("memory://void"))
    known = sys.modules["fsspec.registry"]._registry  # another test may have loaded a store
    monkeypatch.delitem(known, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match=r"s3fs.*medssl\[remote\]"):
        run_ingest(remote("s3://bucket/prefix"))
    monkeypatch.delitem(known, "gs", raising=False)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"^gs:// needs .*gcsfs"):
        run_ingest(remote("gs://bucket/prefix"))


@pytest.mark.enable_socket
@pytest.mark.filterwarnings("default")
def test_s3_server_gives_same_scans_until_it_dies(tmp_path, run_ingest, stored, monkeypatch):
    """When the server is dead, the cohort stays as it was."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs: pip install 'medssl[remote]'")
    s3fs.S3FileSystem.clear_instance_cache()  # one from another test would not know these credentials
    server_of = pytest.importorskip("moto.server", reason="needs moto[server], a stand-in for S3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"), ("AWS_ACCESS_KEY_ID", "none"),
            ("AWS_SECRET_ACCESS_KEY", "none"), ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_MAX_ATTEMPTS", "1"),
        ):  # fmt: skip
            monkeypatch.setenv(name, value)
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.mkdir("archive")
        store.put(str(stored[0]), "archive/2020", recursive=True)
        run_ingest(stored[0], out=tmp_path / "from_folder")
        report = run_ingest(remote("s3://archive/2020"), workers=1)
        assert report.n_scans == 2
        rows = [row for row in read_manifest(tmp_path / "cohort" / "manifest.parquet") if row.accepted]
        assert rows == [row for row in read_manifest(tmp_path / "from_folder" / "manifest.parquet") if row.accepted]
        assert run_ingest(remote("s3://archive/2020"), workers=1).n_loaded == 0
    finally:
        server.stop()
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"s3://archive does not answer \(EndpointConnectionError\).*continues"):
        run_ingest(remote("s3://archive/2020"))
    assert [row for row in read_manifest(tmp_path / "cohort" / "manifest.parquet") if row.accepted] == rows
