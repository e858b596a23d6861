"""Zip, tar and gzip files as sources: the same scans as from a folder, and hostile ones cost themselves."""

import gzip
import io
import os
import random
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pyarrow as pa
import pytest
from written_dicom import Series, random_voxels

from medssl.archive.index.database import read_index
from medssl.archive.limits import Limits
from medssl.archive.sources import members
from medssl.archive.sources import zip_container as zip_source
from medssl.cohort.cohort import Cohort
from medssl.cohort.manifest import read_manifest
from medssl.cohort.summary import summarise

SMALL = {"field_of_view_mm": 5.0}


@pytest.fixture
def plain(tmp_path):
    """Two series in folders of their own, and their closed forms."""
    series = [Series(random_voxels((16, 14, 6))), Series(random_voxels((18, 12, 7), seed=1), patient="P-2002")]
    for number, one in enumerate(series):
        one.write(tmp_path / "plain" / f"p{number}" / "scan")
    return tmp_path / "plain", series


def zipped(folder, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.make_archive(str(path), "zip", folder))


def pack(kind, folder, path):
    """The files of a folder packed in one of seven ways."""
    path.mkdir()
    if kind == "single gz":
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            (path / f"{file.relative_to(folder).as_posix().replace('/', '_')}.gz").write_bytes(
                gzip.compress(file.read_bytes())
            )
    elif kind == "zst":
        whole = Path(shutil.make_archive(str(path / "x"), "tar", folder))
        with pa.CompressedOutputStream(str(path / "x.tar.zst"), "zstd") as stream:
            stream.write(whole.read_bytes())
        whole.unlink()
    else:
        shutil.make_archive(str(path / "x"), kind, folder)
    return path


def reasons_of(cohort):
    with read_index(cohort / "private") as index:
        return {file.path.name: str(file.reason) for file in index.rejected_files()}


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar", "zst", "single gz"])
def test_container_gives_the_scans_of_its_folder(tmp_path, run_ingest, plain, kind):
    folder, series = plain
    run_ingest(folder, out=tmp_path / "from_folder")
    source = pack(kind, folder, tmp_path / "packed")
    assert run_ingest(source).n_scans == 0
    report = run_ingest(source, containers=True)
    assert (report.n_scans, report.n_loaded, report.reasons) == (2, 2, {})
    rows = {row.scan_id: row for row in read_manifest(tmp_path / "cohort" / "manifest.parquet")}
    plain_rows = {row.scan_id: row for row in read_manifest(tmp_path / "from_folder" / "manifest.parquet")}
    assert rows == plain_rows
    affines = sorted(np.round(row.affine_ras_mm, 4).tolist() for row in rows.values())
    assert affines == sorted(np.round(one.affine_ras_mm.ravel(), 4).tolist() for one in series)


def test_report_names_option_for_unopened_containers(tmp_path, run_ingest, plain):
    zipped(plain[0], tmp_path / "packed" / "x")
    run_ingest(tmp_path / "packed")
    summary = summarise(Cohort.open(tmp_path / "cohort").rows)
    assert (summary.reasons, summary.gains) == ({"CONTAINER": 1}, {"--containers": 1})
    run_ingest(tmp_path / "packed", containers=True)
    assert summarise(Cohort.open(tmp_path / "cohort").rows).rejected == 0


def test_office_document_is_not_a_container(tmp_path, run_ingest):
    path = tmp_path / "packed" / "letter.docx"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("[Content_Types].xml", "<x/>")
    run_ingest(tmp_path / "packed")
    assert reasons_of(tmp_path / "cohort") == {"letter.docx": "NOT_DICOM"}


def test_container_is_read_again_only_where_it_grew(tmp_path, run_ingest, plain, monkeypatch):
    """An unchanged container is not opened; of a grown one only the new members are read."""
    folder, _ = plain
    zipped(folder, tmp_path / "packed" / "x")
    run_ingest(tmp_path / "packed", containers=True)
    opened = []
    original = zip_source.ZipSource.__init__
    monkeypatch.setattr(zip_source.ZipSource, "__init__", lambda *given: opened.append(1) or original(*given))
    assert run_ingest(tmp_path / "packed", containers=True).n_loaded == 0
    assert opened == []
    Series(random_voxels((16, 14, 6), seed=2), patient="P-3003").write(folder / "p2")
    (folder / "p0" / "scan" / "IM0000").unlink(missing_ok=True)
    zipped(folder, tmp_path / "packed" / "x")
    report = run_ingest(tmp_path / "packed", containers=True)
    assert (report.n_scans, report.n_loaded) == (3, 1)
    assert len(opened) == 3  # listed, headers of what is new, the new scan


def test_labels_and_dataset_json_match_inside_container(tmp_path, run_ingest):
    folder = tmp_path / "task"
    for name, voxels in (
        ("imagesTr", random_voxels((12, 10, 9)).astype(np.int16)),
        ("labelsTr", (random_voxels((12, 10, 9)) % 2).astype(np.uint8)),
    ):
        (folder / name).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.5, 2.0, 2.5, 1.0])), folder / name / "case_1.nii.gz")
    (folder / "dataset.json").write_text('{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}')
    zipped(folder, tmp_path / "packed" / "x")
    report = run_ingest(tmp_path / "packed", containers=True)
    assert (report.n_scans, report.n_labelled, report.modalities) == (1, 1, {"CT": 1})
    assert Cohort.open(tmp_path / "cohort").label_names == {0: "background", 1: "liver"}


def write_zip(path, contents, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in contents:
            file.writestr(name, content)
    return path


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
    return path


def test_members_with_unsafe_names_are_rejected(tmp_path, run_ingest, plain):
    """Names that lead out of the container, links, devices and duplicate names."""
    dicom = next((plain[0] / "p0" / "scan").iterdir()).read_bytes()
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(
            tmp_path / "packed" / "a.zip",
            [("../../etc/cron.d/x", dicom), ("/abs", dicom), ("C:\\win", dicom), ("ok", dicom), ("ok", b"another")],
        )
    link, device, plain_info = tarfile.TarInfo("link"), tarfile.TarInfo("device"), tarfile.TarInfo("./fine")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    plain_info.size = len(dicom)
    write_tar(tmp_path / "packed" / "b.tar", [(link, b""), (device, b""), (plain_info, dicom)])
    run_ingest(tmp_path / "packed", containers=True)
    found = reasons_of(tmp_path / "cohort")
    assert found == {
        **dict.fromkeys(["member 1", "member 2", "member 3", "member 5"], "CONTAINER_UNSAFE"),
        **dict.fromkeys(["link", "device"], "CONTAINER_UNSAFE"),
    }
    with read_index(tmp_path / "cohort" / "private") as index:
        assert {file.path.name for file in index.files(kind="dicom")} == {"ok", "fine"}


def test_encrypted_zip_or_member_is_rejected_alone(tmp_path, run_ingest, plain):
    zipped(plain[0], tmp_path / "packed" / "fine")

    def lock(path, names):
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as file:
            for info in file.infolist():
                if info.filename in names:
                    data[info.header_offset + 6] |= 1
                    entry = data.find(b"PK\x01\x02")
                    while data[entry + 46 : entry + 46 + len(info.filename)] != info.filename.encode():
                        entry = data.find(b"PK\x01\x02", entry + 4)
                    data[entry + 8] |= 1
        path.write_bytes(data)

    lock(write_zip(tmp_path / "packed" / "all.zip", [("x", b"1"), ("y", b"2")]), {"x", "y"})
    lock(write_zip(tmp_path / "packed" / "one.zip", [("open", b"1"), ("shut", b"2")]), {"shut"})
    report = run_ingest(tmp_path / "packed", containers=True)
    assert report.n_scans == 2
    assert reasons_of(tmp_path / "cohort") == {
        "all.zip": "CONTAINER_ENCRYPTED", "shut": "CONTAINER_ENCRYPTED", "open": "NOT_DICOM"
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_truncated_container_keeps_members_before_the_cut(tmp_path, run_ingest, plain, kind):
    folder, _ = plain
    source = pack(kind, folder, tmp_path / "packed")
    whole = next(source.iterdir())
    (source / f"cut_{whole.name}").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    report = run_ingest(source, containers=True)
    assert report.n_scans >= 2
    # The archive has a row; a member that breaks off costs its scan or, where its header does, itself.
    assert report.reasons.get("CONTAINER_BROKEN") in (1, 2)
    assert set(report.reasons) <= {"CONTAINER_BROKEN", "TRUNCATED", "TOO_FEW_SLICES", "MISSING_SLICES"}


def test_wrong_checksum_rejects_its_scan(tmp_path, run_ingest, plain):
    # Slices of more than the 8 KiB that the header scan reads.
    Series(random_voxels((80, 64, 6), seed=3), patient="P-3003").write(plain[0] / "p2")
    path = zipped(plain[0], tmp_path / "packed" / "x")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        info = next(info for info in file.infolist() if info.filename.startswith("p2/") and not info.is_dir())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size - 40] ^= 0xFF
    path.write_bytes(data)
    report = run_ingest(tmp_path / "packed", containers=True)
    assert (report.n_scans, report.reasons) == (2, {"CONTAINER_BROKEN": 1})


def test_nested_containers_and_other_methods_are_rejected(tmp_path, run_ingest, plain):
    inner = write_zip(tmp_path / "inner.zip", [("x", b"1")]).read_bytes()
    write_zip(tmp_path / "packed" / "a.zip", [("inner.zip", inner), ("x.dcm.gz", gzip.compress(b"\0" * 2000))])
    write_zip(tmp_path / "packed" / "b.zip", [("x", b"1" * 9999)], compression=zipfile.ZIP_LZMA)
    run_ingest(tmp_path / "packed", containers=True)
    assert reasons_of(tmp_path / "cohort") == {
        "inner.zip": "CONTAINER_NESTED", "x.dcm.gz": "CONTAINER_NESTED", "x": "CONTAINER_BROKEN"
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "gztar", "bztar", "single gz"])
def test_bomb_is_rejected_before_unpacking(tmp_path, run_ingest, monkeypatch, kind):
    for module in (members, zip_source):
        monkeypatch.setattr(module, "MIN_BOMB_BYTES", 1 << 20)
    (tmp_path / "zeros").mkdir()
    (tmp_path / "zeros" / "x").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * (40 << 20))
    pack(kind, tmp_path / "zeros", tmp_path / "packed")
    report = run_ingest(tmp_path / "packed", containers=True)
    assert report.reasons == {"CONTAINER_BOMB": 1}


def test_container_members_and_directory_are_limited(tmp_path, run_ingest):
    write_zip(tmp_path / "packed" / "many.zip", [(f"m{number}", b"1") for number in range(30)])
    write_tar(tmp_path / "packed" / "many.tar", [(tarfile.TarInfo(f"m{number}"), b"") for number in range(30)])
    lying = write_zip(tmp_path / "packed" / "lying.zip", [("x", b"1")])
    data = bytearray(lying.read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x05\x06") + 12, 1 << 30)
    lying.write_bytes(data)
    run_ingest(tmp_path / "packed", containers=True, limits=Limits(container_members=20, **SMALL))
    assert reasons_of(tmp_path / "cohort") == dict.fromkeys(["many.zip", "many.tar", "lying.zip"], "CONTAINER_BOMB")


def test_tar_with_gigabytes_of_name_is_rejected(tmp_path, run_ingest):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (tmp_path / "packed").mkdir()
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    (tmp_path / "packed" / "x.tar").write_bytes(bytes(head) + b"a" * 5000)
    assert run_ingest(tmp_path / "packed", containers=True).reasons == {"CONTAINER_BOMB": 1}


@pytest.mark.parametrize("time", [2.0**40, -(2.0**50), float("inf"), float("nan")])
def test_tar_member_with_absurd_mtime_is_read(tmp_path, run_ingest, plain, time):
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for path in sorted(p for p in plain[0].rglob("*") if p.is_file()):
            info = file.gettarinfo(path, arcname=str(path.relative_to(plain[0])))
            info.mtime, info.pax_headers = 0, {"mtime": str(time)}
            file.addfile(info, io.BytesIO(path.read_bytes()))
    wanted = run_ingest(plain[0], out=tmp_path / "from_folder").n_scans
    assert run_ingest(tmp_path / "packed", containers=True).n_scans == wanted > 0


def test_mutated_containers_never_stop_an_ingest(tmp_path, run_ingest, plain):
    folder, _ = plain
    shutil.rmtree(folder / "p1")
    draws = random.Random(7)
    (tmp_path / "mutated").mkdir()
    for kind in ("zip", "tar", "gztar"):
        whole = next(pack(kind, folder, tmp_path / kind).iterdir())
        for number in range(25):
            data = bytearray(whole.read_bytes())
            for _ in range(draws.choice([1, 4, 40])):
                # Half of the changes near the end, where a zip has its directory.
                low = draws.choice([0, max(0, len(data) - 900)])
                data[draws.randrange(low, len(data))] = draws.randrange(256)
            (tmp_path / "mutated" / f"{number}_{whole.name}").write_bytes(data[: draws.choice([len(data), -77])])
    report = run_ingest(tmp_path / "mutated", containers=True)
    assert report.n_files == 75


def test_container_copies_vanish_with_the_worker(tmp_path, run_ingest, plain, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    pack("gztar", plain[0], tmp_path / "packed")
    before = len(os.listdir("/dev/fd"))
    assert run_ingest(tmp_path / "packed", containers=True, workers=1).n_scans == 2
    assert len(os.listdir("/dev/fd")) <= before + 2  # the pool's own
    assert [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()] == []


def test_interrupted_container_is_continued(tmp_path, run_ingest, plain, monkeypatch):
    zipped(plain[0], tmp_path / "packed" / "x")
    run_ingest(tmp_path / "packed", containers=True, out=tmp_path / "whole")
    from medssl.archive.index.database import Index

    original = Index.put_files

    def die_at_the_end(self, files):
        files = list(files)
        if any(file.kind == "opened" for file in files):
            raise KeyboardInterrupt
        original(self, files)

    monkeypatch.setattr(Index, "put_files", die_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        run_ingest(tmp_path / "packed", containers=True)
    monkeypatch.setattr(Index, "put_files", original)
    run_ingest(tmp_path / "packed", containers=True)
    assert read_manifest(tmp_path / "cohort" / "manifest.parquet") == read_manifest(
        tmp_path / "whole" / "manifest.parquet"
    )


def test_container_names_stay_in_the_private_folder(tmp_path, run_ingest, plain):
    shutil.move(plain[0], tmp_path / "Qvortrup_Xenobia")
    path = zipped(tmp_path / "Qvortrup_Xenobia", tmp_path / "packed" / "Zebulon_1961")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("Ottoline/notes.zip", b"PK\x03\x04 no zip")
    run_ingest(tmp_path / "packed", containers=True)
    public = [path for path in (tmp_path / "cohort").rglob("*") if path.is_file() and "private" not in path.parts]
    assert len(public) >= 4
    for name in (b"Zebulon", b"Ottoline", b"IM0001", b"packed"):
        assert not [path for path in public if name in path.read_bytes()]
    with read_index(tmp_path / "cohort" / "private") as index:
        outer = tmp_path / "packed" / "Zebulon_1961.zip"
        assert any(f"{file.path}".startswith(f"{outer}::/p0/scan/") for file in index.files(kind="dicom"))
