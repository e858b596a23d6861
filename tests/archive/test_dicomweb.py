"""DICOMweb: a real Orthanc gives the scans of the folder; bad answers cost their instance; a dead server says so."""

import io
import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import numpy as np
import pydicom
import pytest
from written_dicom import Series, random_voxels

from medssl.archive.dicom.json_header import IncompleteHeader, header_bytes
from medssl.archive.index.database import read_index
from medssl.archive.sources import network
from medssl.archive.sources.dicomweb import first_part
from medssl.cohort.manifest import read_manifest
from medssl.errors import DataError, UsageError

httpx = pytest.importorskip("httpx", reason="needs httpx: pip install 'medssl[remote]'")
pytestmark = pytest.mark.enable_socket
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """Two series in a folder, and their closed forms."""
    monkeypatch.setattr(network, "RETRY_PAUSES_S", (0.0, 0.0))
    series = [Series(random_voxels((20, 16, 6))), Series(random_voxels((18, 24, 7), seed=1), patient="P-2002")]
    for number, one in enumerate(series):
        one.write(tmp_path / "2020" / f"p{number}")
    return tmp_path / "2020", series


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def orthanc(tmp_path):
    """A running Orthanc with DICOMweb; its URL."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.is_file():
        pytest.skip("needs Orthanc with DICOMweb: apt-get install orthanc orthanc-dicomweb")
    port = free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "orthanc"), "IndexDirectory": str(tmp_path / "orthanc"),
        "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with (tmp_path / "orthanc.log").open("w") as log:
        process = subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                httpx.get(f"{url}/system").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def accepted(cohort):
    return [row for row in read_manifest(cohort / "manifest.parquet") if row.accepted]


def test_orthanc_gives_the_scans_of_the_folder(tmp_path, run_ingest, exported, orthanc):
    folder, series = exported
    for path in sorted(folder.rglob("IM*")):
        httpx.post(f"{orthanc}/instances", content=path.read_bytes()).raise_for_status()
    run_ingest(folder, out=tmp_path / "from_folder")
    source = Path(f"dicomweb+{orthanc}/dicom-web")
    report = run_ingest(source)
    assert (report.n_files, report.n_scans, report.reasons) == (13, 2, {})
    assert accepted(tmp_path / "cohort") == accepted(tmp_path / "from_folder")
    found = sorted(np.round(row.affine_ras_mm, 4).tolist() for row in accepted(tmp_path / "cohort"))
    assert found == sorted(np.round(one.affine_ras_mm.ravel(), 4).tolist() for one in series)
    assert run_ingest(source).n_loaded == 0
    one = run_ingest(Path(source, "studies", series[0].study_uid), out=tmp_path / "one")
    assert (one.n_files, one.n_scans) == (6, 1)


class Fake:
    """A small DICOMweb server that answers as a test wants it to. `bad(path, kind)` may give (status, type, body)."""

    def __init__(self, folder):
        self.files = {ds.SOPInstanceUID: (ds, path) for path in sorted(folder.rglob("IM*"))
                      for ds in [pydicom.dcmread(path)]}  # fmt: skip
        self.bad = lambda path: None
        self.asked = []

    def __call__(self, environ, start):
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        self.asked.append((path, environ.get("HTTP_AUTHORIZATION")))
        status, kind, body = self.bad(path) or self.answer(path, query)
        start(f"{status} x", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def answer(self, path, query):
        parts = path.strip("/").split("/")
        offset = int(dict(pair.split("=") for pair in query.split("&") if pair).get("offset", 0))
        if parts[-1] in ("studies", "series", "instances"):
            keyword = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
            scope = dict(zip(parts[::2], parts[1::2], strict=False))
            found = [ds for ds, _ in self.files.values()
                     if all(str(ds[keyword[name]].value) == uid for name, uid in scope.items())]  # fmt: skip
            tag = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}[parts[-1]]
            uids = sorted({str(ds[keyword[parts[-1]]].value) for ds in found})[offset:]
            body = json.dumps([{tag: {"vr": "UI", "Value": [uid]}} for uid in uids])
            return 200, "application/dicom+json", body.encode()
        ds, file = self.files[parts[5]]
        if parts[-1] == "metadata":
            told = ds.to_json_dict(bulk_data_threshold=64, bulk_data_element_handler=lambda _: "http://x/bulk")
            return 200, "application/dicom+json", json.dumps([told]).encode()
        body = b"--b0\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n--b0--\r\n"
        return 200, 'multipart/related; type="application/dicom"; boundary=b0', body


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def fake(exported):
    """(the server, its source)."""
    answers = Fake(exported[0])
    server = make_server("127.0.0.1", 0, answers, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield answers, Path(f"dicomweb+http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    thread.join()


def test_headers_come_from_metadata_alone(tmp_path, run_ingest, exported, fake):
    answers, source = fake
    run_ingest(exported[0], out=tmp_path / "from_folder")
    assert run_ingest(source, dry_run=True).n_scans == 2
    assert not [path for path, _ in answers.asked if len(path.split("/")) == 7]
    run_ingest(source)
    assert accepted(tmp_path / "cohort") == accepted(tmp_path / "from_folder")


def test_incomplete_metadata_fall_back_to_the_instance(tmp_path, run_ingest, exported, fake):
    answers, source = fake
    run_ingest(exported[0], out=tmp_path / "from_folder")
    answers.bad = lambda path: (
        (200, "application/dicom+json", b'[{"00200032": {"vr": "DS", "BulkDataURI": "http://x"}}]')
        if path.endswith("metadata")
        else None
    )
    run_ingest(source)
    assert accepted(tmp_path / "cohort") == accepted(tmp_path / "from_folder")


GOOD = b"--b0\r\n\r\n" + b"x" * 300 + b"\r\n--b0--"


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (500, "text/plain", b"Qvortrup"),
        (200, "text/html", b"<html>Qvortrup</html>"),
        (200, "multipart/related; boundary=b0", GOOD[:200]),
        (200, "multipart/related; boundary=b0", b"no part at all"),
        (200, "multipart/related", GOOD),
        (404, "text/plain", b"gone"),
    ],
)
def test_bad_response_rejects_its_scan_until_repeated(tmp_path, run_ingest, fake, status, kind, body):
    """The next run tries again."""
    answers, source = fake
    victim = sorted(answers.files)[0]
    answers.bad = lambda path: (status, kind, body) if path.endswith(victim) else None
    report = run_ingest(source)
    assert (report.n_scans, report.reasons) == (1, {"IO_ERROR": 1})
    with read_index(tmp_path / "cohort" / "private") as index:
        assert not any("Qvortrup" in (scan.outcome_json or "") for scan in index.scans())
    answers.bad = lambda path: None
    assert run_ingest(source).n_scans == 2


def test_metadata_without_json_reject_their_instance(run_ingest, fake):
    answers, source = fake
    victim = sorted(answers.files)[0]
    answers.bad = lambda path: (200, "application/dicom+json", b"[{") if f"{victim}/metadata" in path else None
    assert run_ingest(source).reasons.get("IO_ERROR") == 1


def test_wrong_instance_is_rejected(run_ingest, fake):
    answers, source = fake
    first, second = sorted(answers.files)[:2]
    stranger = answers.answer(f"/studies/1/series/1/instances/{second}", "")
    answers.bad = lambda path: stranger if path.endswith(first) else None
    report = run_ingest(source)
    assert (report.n_scans, report.reasons) == (1, {"IN_FLUX": 1})


def test_dead_server_ends_ingest_and_can_be_continued(tmp_path, run_ingest, fake):
    """Also where the server refuses the credentials."""
    answers, source = fake
    run_ingest(source, out=tmp_path / "whole")
    answers.asked.clear()
    answers.bad = lambda path: (503, "text/plain", b"") if len(answers.asked) > 12 else None
    with pytest.raises(DataError, match=r"does not answer .*continues where it stopped"):
        run_ingest(source)
    answers.bad = lambda path: (401, "text/plain", b"")
    with pytest.raises(DataError, match=r"the server answers 401.*credentials"):
        run_ingest(source)
    answers.bad = lambda path: None
    run_ingest(source)
    assert accepted(tmp_path / "cohort") == accepted(tmp_path / "whole")


def test_credentials_are_read_and_never_written(tmp_path, run_ingest, fake, monkeypatch):
    answers, source = fake
    monkeypatch.setenv("MEDSSL_DICOMWEB_TOKEN", "Xenobia-4711")
    run_ingest(source)
    assert {sent for _, sent in answers.asked} == {"Bearer Xenobia-4711"}
    written = [path for path in (tmp_path / "cohort").rglob("*") if path.is_file()]
    assert not [path for path in written if b"Xenobia" in path.read_bytes()]
    public = [path for path in written if "private" not in path.parts]
    for name in (b"127.0.0.1", b"dicomweb", *(uid.encode() for uid in answers.files)):
        assert not [path for path in public if name in path.read_bytes()]
    with pytest.raises(UsageError, match="netrc"):
        run_ingest(Path("dicomweb+http://anna:secret@127.0.0.1/dicom-web"))


def test_json_header_reads_like_the_file(exported):
    path = sorted(exported[0].rglob("IM*"))[0]
    ds = pydicom.dcmread(path)
    made = pydicom.dcmread(io.BytesIO(header_bytes(ds.to_json_dict())), stop_before_pixels=True)
    for element in made:
        assert element.value == ds[element.tag].value
    assert {"ImagePositionPatient", "PixelSpacing", "Rows", "PatientID"} <= {element.keyword for element in made}
    with pytest.raises(IncompleteHeader, match="00280010"):
        header_bytes({"00280010": {"vr": "US", "Value": ["many"]}})


@pytest.mark.parametrize("size", [1, 2, 7, 64, 5000])
def test_first_part_is_independent_of_chunk_size(size):
    content = b"\r\n--b" + bytes(range(256)) * 3 + b"\r\n--"
    body = b"preamble\r\n--b0 \r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b0--\r\n"
    pieces = [body[begin : begin + size] for begin in range(0, len(body), size)]
    assert b"".join(first_part('multipart/related; boundary="b0"', pieces)) == content
