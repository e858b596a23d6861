"""Strings are planted wherever a hospital writes about people; none may leave the archive.

Ingest, pretraining, fine-tuning and the MLflow mirror run on it. Then every byte they wrote outside COHORT/private is
searched, and every line they printed.
"""

import gzip
import json
import os
import zipfile

import nibabel
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from medssl.tracking.sync import sync
from medssl_cli.main import app
from medssl_phantoms import labelled_case, make_archive
from medssl_phantoms.dicom_files import uid

# MLflow's own warnings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

# Every text element that a scanner or a desk fills in, each with a word of its own.
DICOM_TEXTS = {
    "PatientName": "Qvortrup^Xenobia", "PatientID": "HN7734421", "OtherPatientNames": "Wozzleford^X",
    "PatientAddress": "Plumbago Lane 9", "PatientComments": "grumbling Zwiebelkuchen",
    "PatientMotherBirthName": "Ytterbiumsson", "EthnicGroup": "Vxlander", "Occupation": "kazoo tuner",
    "AdditionalPatientHistory": "fell off a Jabberwock", "AccessionNumber": "ACZ90817263", "StudyID": "SIDQQ81",
    "StudyDescription": "Qvortrup Abdomen", "SeriesDescription": "axial Snarkhunt",
    "ProtocolName": "Bandersnatch fast", "ImageComments": "see Tumtum tree", "InstitutionName": "Borogove General",
    "InstitutionAddress": "Mimsy Road 3", "InstitutionalDepartmentName": "Slithydept", "StationName": "WABESTATION",
    "ReferringPhysicianName": "Galumph^Frabjous", "OperatorsName": "Callooh^Callay",
    "PerformingPhysicianName": "Uffish^Thought", "DeviceSerialNumber": "SNX-55512",
    "Manufacturer": "Vorpal Works of Qvortrup", "ManufacturerModelName": "Beamish 3000 of Xenobia",
    "SoftwareVersions": "jujub 1.2", "BodyPartExamined": "MANXOMELEG", "StudyDate": "19770103",
    "PatientBirthDate": "19310517", "SequenceName": "tulgeyseq", "RequestedProcedureDescription": "whiffling exam",
    "PerformedProcedureStepDescription": "burbled step", "ScanOptions": "OUTGRABEOPT",
    "ContrastBolusAgent": "rathjuice", "DerivationDescription": "made by Mome",
}  # fmt: skip
NIFTI_TEXTS = {
    "descrip": "scan of Zaphodelia",
    "aux_file": "trilliandata",
    "db_name": "MarvinsDB",
    "intent_name": "slartibart",
}
NAMES = ("Wuthering_Ward", "Heathcliffson_Jane", "linton_scan")
UID_ROOT = "1.2.826.77.31415926"
PRIVATE = "deeply private Rochester"
EXTENSION = "extension about Fezziwig"


def planted():
    """What must not be found; dates and plain words too, since none of them has a reason to come out."""
    texts = [*DICOM_TEXTS.values(), *NIFTI_TEXTS.values(), *NAMES, UID_ROOT, PRIVATE, EXTENSION]
    parts = [part for text in texts for part in text.split("^")]
    names = [word for text in texts for word in text.replace("^", " ").replace("_", " ").split() if word[0].isupper()]
    return sorted({word for word in parts + names if len(word) > 5 and word not in {"Abdomen", "General"}})


def plant_dicom(path):
    image = pydicom.dcmread(path)
    for keyword, text in DICOM_TEXTS.items():
        setattr(image, keyword, text)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(image, keyword, f"{UID_ROOT}.{uid(image[keyword].value)[5:30]}")
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.private_block(0x0051, "ROCHESTER PRIVATE", create=True).add_new(0x07, "LT", PRIVATE)
    image.RequestAttributesSequence = [pydicom.Dataset()]
    image.RequestAttributesSequence[0].RequestedProcedureDescription = PRIVATE
    image.save_as(path, enforce_file_format=True)


def plant_nifti(path, volume):
    image = nibabel.Nifti1Image(volume.voxels, volume.affine_ras_mm)
    image.header.set_xyzt_units("mm")
    for field, text in NIFTI_TEXTS.items():
        image.header[field] = text
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, EXTENSION.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Folder with planted strings in every name and header; no label's values tell anything."""
    ward = tmp_path_factory.mktemp("archive") / NAMES[0]
    made = make_archive(ward / NAMES[1], dicom_patients=1, nifti_cases=0, shape=(26, 22, 20))
    for path in made.dicom.rglob("IM*"):
        if "SE9" not in path.parts:  # the truncated file cannot be written again
            plant_dicom(path)
        path.rename(path.with_name(f"{NAMES[2]}_{path.name}"))
    for number in range(10):
        image, label = labelled_case(0, number, shape=(26, 22, 20))
        plant_nifti(ward / "images" / f"{NAMES[2]}_{number}.nii.gz", image)
        plant_nifti(ward / "labels" / f"{NAMES[2]}_{number}.nii.gz", label)
    broken = ward / "images" / f"{NAMES[2]}_nan.nii.gz"
    plant_nifti(broken, type(image)(np.full((9, 9, 9), np.nan, np.float32), np.diag([9.0, 9, 9, 1])))
    for path in ward.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return ward


@pytest.fixture(scope="module")
def outcome(archive, tmp_path_factory):
    """(folder with everything that was written, everything that was printed)."""
    out = tmp_path_factory.mktemp("out")
    short = ["--steps", "2"]
    for setting in ("loop.batch_size=2", "loop.workers=0", "patch=[16,16,16]", "loop.pictures_every=1"):
        short += ["--set", setting]
    short += ["--set", f"tracking.uri=sqlite:///{out}/mlflow.db", "--cohort", f"{out}/cohort"]
    key = ["--key-file", f"{out}/key"]
    calls = [
        ["ingest", str(archive), "--label-dir", str(archive / "labels"), "--out", f"{out}/cohort", *key],
        ["pretrain", "--task", "masked-volume", "--out", f"{out}/pretrained", *short],
        ["finetune", "--init", f"{out}/pretrained", "--num-labelled", "2", "--out", f"{out}/tuned", *short],
    ]
    printed = ""
    for call in calls:
        result = CliRunner().invoke(app, call)
        assert result.exit_code == 0, result.output
        printed += result.output
    for run in ("pretrained", "tuned"):
        assert sync(out / run).sent == 0  # MLflow has all of it already
    return out, printed


def layers(path):
    """The file's bytes, and what lies compressed in them, as text where it is a table."""
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        yield json.dumps(table.to_pylist()).encode() + str(table.schema.metadata).encode()
    elif path.suffix == ".b2nd":
        import blosc2

        stored = blosc2.open(str(path), mode="r")
        yield json.dumps({name: str(stored.schunk.vlmeta[name]) for name in stored.schunk.vlmeta}).encode()
    elif path.suffix == ".gz":
        yield gzip.decompress(raw)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as members:
            for name in members.namelist():
                yield name.encode() + members.read(name)


def found(content, words):
    """Words that occur in bytes, in any case and as UTF-8 or UTF-16."""
    low = content.lower()
    return [word for word in words if word.lower().encode() in low or word.lower().encode("utf-16-le") in low]


def test_identity_stays_in_private_folder(outcome):
    out, _ = outcome
    files = [
        path for path in sorted(out.rglob("*")) if path.is_file() and out / "cohort" / "private" not in path.parents
    ]
    kinds = {path.suffix for path in files}
    assert {".parquet", ".b2nd", ".json", ".jsonl", ".yaml", ".png", ".safetensors", ".ckpt", ".txt", ".db"} <= kinds
    leaks = {
        str(path.relative_to(out)): sorted(words)
        for path in files
        if (
            words := {
                word
                for layer in [*layers(path), str(path.relative_to(out)).encode()]
                for word in found(layer, planted())
            }
        )
    }
    assert leaks == {}


def test_output_names_no_patient(outcome):
    assert found(outcome[1].encode(), planted()) == []


def test_search_finds_identity_in_private_folder(outcome):
    """Control: the search finds the strings where they may be, so that silence elsewhere means something."""
    private = outcome[0] / "cohort" / "private"
    words = {
        word
        for path in private.rglob("*")
        if path.is_file()
        for layer in layers(path)
        for word in found(layer, planted())
    }
    assert {*NAMES, "HN7734421"} <= words


def test_private_folder_is_readable_by_owner_only(outcome):
    private = outcome[0] / "cohort" / "private"
    assert private.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in private.iterdir() if path.stat().st_size} == {0}


def test_archive_is_not_modified(archive):
    assert {path.stat().st_mtime for path in archive.rglob("*")} == {1_600_000_000.0}
