"""Peak memory and time from header records to the manifest, for archives of growing size.

    python benchmarks/archive_memory.py [--records 10000 100000 1000000]

No files are needed: a generator makes the records of CT series (20 slices each, two series a study, three studies a
patient), which go through the index, assembling and the outcomes of loading into the manifest, as in ingest. Each size
runs in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from medssl.archive.dicom.record import Frame, Record, record_json
from medssl.archive.dicom.uids import CT, EXPLICIT_VR_LITTLE_ENDIAN
from medssl.archive.index.database import Index, open_index
from medssl.archive.index.entries import IndexedFile
from medssl.archive.index.planned_scan import Outcome
from medssl.archive.plan.dicom import plan_dicom
from medssl.archive.plan.labels import label_objects, name_table
from medssl.archive.plan.rows import scan_rows
from medssl.archive.privacy.pseudonyms import Pseudonyms
from medssl.archive.series.assemble import Rules
from medssl.archive.sources.walk import FileStamp
from medssl.cohort.manifest import write_manifest

SLICES, SERIES_PER_STUDY, STUDIES_PER_PATIENT = 20, 2, 3
BATCH_FILES = 64
ROOT = Path("/archive")


def synthetic(number: int) -> IndexedFile:
    """The n-th file of the archive: one slice of a CT, of 512 x 512 voxels."""
    series, place = divmod(number, SLICES)
    study = series // SERIES_PER_STUDY
    frame = Frame(
        number=0, position_mm=(-120.0, -130.5, 2.5 * place), orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(0.75, 0.75), intercept=-1024.0, image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        kernel=("B30f", "B70f")[series % 2], acquisition=1, instance=place + 1, time=f"10{place:02d}00",
        thickness_mm=2.5,
    )  # fmt: skip
    record = Record(
        patient=f"H{study // STUDIES_PER_PATIENT:07d}", issuer="", study=f"1.2.826.1.{study}",
        series=f"1.2.826.2.{series}", instance=f"1.2.826.3.{number}", sop_class=CT, syntax=EXPLICIT_VR_LITTLE_ENDIAN,
        modality="CT",
        rows=512, columns=512, n_frames=1, photometric="MONOCHROME2", bits_allocated=16, bits_stored=12, high_bit=11,
        signed=False, padding=None, grid=0, frame_of_reference=f"1.2.826.4.{study}", manufacturer="siemens",
        model="definition", body_part="chest", lut=False, pixel_at=1500, pixel_bytes=524288,
        frames=(frame,),
    )  # fmt: skip
    path = ROOT / f"{number // 5000:05d}" / f"IM{number:08d}"
    key = f"dicom:{record.study}/{record.series}"
    return IndexedFile(path, ROOT, FileStamp(526_000, number), "dicom", None, "", key, record_json(record))


def fill(index: Index, n_records: int) -> None:
    """Every record, as the workers of ingest hand them over."""
    for start in range(0, n_records, BATCH_FILES):
        index.put_files([synthetic(number) for number in range(start, min(start + BATCH_FILES, n_records))])


def plan(index: Index, pseudonyms: Pseudonyms) -> None:
    """Records to scans."""
    table, changed = name_table(index, None)
    plan_dicom(index, pseudonyms, Rules(), label_objects(index, table, {}, all_again=changed))


def load(index: Index) -> None:
    """Outcomes as loading leaves them; every hundredth scan is another one's copy."""
    for number, scan_id in enumerate(index.scans_to_load()):
        content = f"{number - number % 100 // 99:064x}"
        index.put_outcome(scan_id, Outcome(None, "", content_hash=content))


def stages(folder: Path, n_records: int) -> Iterator[tuple[str, float]]:
    """(stage, seconds) of the way from records to the manifest."""
    pseudonyms = Pseudonyms(b"k" * 32)
    with open_index(folder / "private") as index:
        for name, work in {
            "index": lambda: fill(index, n_records),
            "plan": lambda: plan(index, pseudonyms),
            "outcomes": lambda: load(index),
            "duplicates": index.duplicates,
            "manifest": lambda: write_manifest(
                folder / "manifest.parquet", scan_rows(index, pseudonyms, lambda patient: "train", {})
            ),
        }.items():
            started_s = time.process_time()
            work()
            yield name, time.process_time() - started_s


def measure(n_records: int) -> dict[str, object]:
    """Figures of this process: CPU seconds and peak memory after each stage."""
    facts: dict[str, object] = {"records": n_records}
    with tempfile.TemporaryDirectory() as folder:
        import pyarrow.parquet  # noqa: F401 - its 60 MiB belong to every size alike

        facts["peak_mib_before"] = peak_mib()
        for name, seconds in stages(Path(folder), n_records):
            facts[f"{name}_cpu_s"] = round(seconds, 2)
            facts[f"{name}_peak_mib"] = peak_mib()
        facts["manifest_mib"] = round(Path(folder, "manifest.parquet").stat().st_size / 2**20, 2)
    return facts


def peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    from machine import machine, write_results

    found = []
    for count in arguments.records:
        run = subprocess.run(
            [sys.executable, __file__, "--one", str(count)], check=True, capture_output=True, text=True
        )
        found.append(json.loads(run.stdout))
        print(json.dumps(found[-1]), flush=True)
    growth = found[-1]["manifest_peak_mib"] / found[0]["manifest_peak_mib"]
    print(f"peak memory from {arguments.records[0]:,} to {arguments.records[-1]:,} records: {growth:.2f} times")
    write_results("archive_memory", {"machine": machine("pyarrow"), "growth": round(growth, 2), "sizes": found})


if __name__ == "__main__":
    main()
