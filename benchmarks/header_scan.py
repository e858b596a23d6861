"""Reading an archive, side by side with named peers on the same files: headers, slices, and a second run over an
unchanged archive.

    python benchmarks/header_scan.py ../shared/data/dicom [--copies 40000]

Headers and slices are measured in CPU seconds of one process (the machine may be shared), the contestants in turns, as
medians; dcm2niix in user and system seconds of its process; the second run in wall seconds, in a process of its own.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pydicom

from medssl.archive.dicom.pixels import PixelFormat, read_frames
from medssl.archive.dicom.record import parse_record
from medssl.archive.limits import Limits
from medssl.archive.scan.recognise import scan_file
from medssl.archive.sources.walk import FileStamp, walk
from medssl.ingestion.archive_to_cohort import ingest
from medssl.ingestion.settings import IngestSettings

TURNS = 5
# The elements that medssl's header scan turns into a record.
KEYWORDS = [
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "AcquisitionTime",
    "ContentTime",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "PatientID",
    "BodyPartExamined",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "EchoNumbers",
    "FlipAngle",
    "SliceThickness",
    "SpacingBetweenSlices",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
]


def cpu_seconds(*contestants: Callable[[], object]) -> list[float]:
    """Median CPU seconds of each; they take turns, so that a busy machine is busy for all of them."""
    times: list[list[float]] = [[] for _ in contestants]
    for turn in range(1 + TURNS):
        for own, work in zip(times, contestants, strict=True):
            started = time.process_time()
            work()
            if turn:  # the first warms the page cache
                own.append(time.process_time() - started)
    return [statistics.median(own) for own in times]


def scan_all(files: list[tuple[Path, FileStamp]], root: Path) -> None:
    for path, stamp in files:
        scan_file(path, root, stamp, limits=Limits())


def pydicom_all(files: list[tuple[Path, FileStamp]]) -> None:
    for path, _ in files:
        ds = pydicom.dcmread(path, specific_tags=KEYWORDS, stop_before_pixels=True)
        for keyword in KEYWORDS:
            ds.get(keyword)


def headers(root: Path, files: list[tuple[Path, FileStamp]]) -> dict[str, object]:
    own_s, pydicom_s = cpu_seconds(lambda: scan_all(files, root), lambda: pydicom_all(files))
    facts: dict[str, object] = {
        "files": len(files),
        "medssl_per_s": round(len(files) / own_s),
        "pydicom_per_s": round(len(files) / pydicom_s),
        "times_pydicom": round(pydicom_s / own_s, 1),
    }
    program = shutil.which("dcm2niix", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is not None:
        its_s = statistics.median(dcm2niix_cpu_seconds(program, root) for _ in range(TURNS))
        facts |= {"dcm2niix_per_s": round(len(files) / its_s), "times_dcm2niix": round(its_s / own_s, 1)}
    return facts


def dcm2niix_cpu_seconds(program: str, root: Path) -> float:
    with tempfile.TemporaryDirectory() as out:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([program, "-b", "o", "-f", "%s", "-o", out, root], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def slices(root: Path, files: list[tuple[Path, FileStamp]]) -> dict[str, object]:
    native = []
    for path, stamp in files:
        record = parse_record(scan_file(path, root, stamp, limits=Limits()).record or "")
        if record.syntax == "1.2.840.10008.1.2.1" and record.n_frames == 1 and record.reason is None:
            layout = PixelFormat(
                record.syntax,
                record.rows,
                record.columns,
                1,
                record.bits_allocated,
                record.bits_stored,
                record.high_bit,
                record.signed,
            )
            native.append((path, layout, record.pixel_at))

    def ours() -> None:
        for path, layout, pixel_at in native:
            read_frames(str(path), layout, [0], pixel_at=pixel_at, limits=Limits())

    def theirs() -> None:
        for path, _, _ in native:
            _ = pydicom.dcmread(path).pixel_array

    own_s, pydicom_s = cpu_seconds(ours, theirs)
    return {
        "files": len(native),
        "medssl_per_s": round(len(native) / own_s),
        "pydicom_per_s": round(len(native) / pydicom_s),
        "times_pydicom": round(pydicom_s / own_s, 1),
    }


def second_run(files: list[tuple[Path, FileStamp]], copies: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        for number in range(copies):
            target = source / f"{number // 500:04d}" / f"{number:06d}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[number % len(files)][0], target)
        seconds = [ingest_seconds(folder) for _ in range(1 + TURNS)]
    return {"files": copies, "first_s": seconds[0], "unchanged_s": statistics.median(seconds[1:])}


def ingest_seconds(folder: str) -> float:
    """Wall seconds of one ingest in a new process, as a user runs it, less the start of Python and its imports."""
    command = [sys.executable, __file__, folder, "--ingest-only"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def ingest_only(folder: Path) -> None:
    started = time.perf_counter()
    ingest([folder / "source"], folder / "cohort", settings=IngestSettings(key_file=folder / "key"))
    print(round(time.perf_counter() - started, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--copies", type=int, default=0)
    parser.add_argument("--ingest-only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ingest_only:
        ingest_only(arguments.root)
        return
    from machine import machine, write_results

    warnings.simplefilter("ignore")
    root = arguments.root.resolve()
    found = [(folder.path / name, stamp) for folder in walk(root) for name, stamp in folder.files.items()]
    files = [(path, stamp) for path, stamp in found if scan_file(path, root, stamp, limits=Limits()).kind == "dicom"]
    facts = {"machine": machine("pydicom"), "headers": headers(root, files), "slices": slices(root, files)}
    if arguments.copies:
        facts["second_run"] = second_run(files, arguments.copies)
    print(json.dumps(facts, indent=2))
    write_results("header_scan", facts)


if __name__ == "__main__":
    main()
