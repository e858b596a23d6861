"""Reading an archive, side by side with named peers on the same files: headers, slices, and a second run over an
unchanged archive.

    python benchmarks/header_scan.py ../shared/data/dicom [--copies 40000]

Headers and slices are measured in CPU seconds of one process (the machine may be shared); dcm2niix and the second run
in wall seconds.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pydicom

from medssl.archive.discover import Stamp, walk
from medssl.archive.limits import Limits
from medssl.archive.pixels import PixelFormat, read_frames
from medssl.archive.record import parse_record
from medssl.archive.scan import scan_file
from medssl.store.ingest import IngestSettings, ingest

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


def cpu_seconds(work: Callable[[], object]) -> float:
    work()
    started = time.process_time()
    work()
    return time.process_time() - started


def scan_all(files: list[tuple[Path, Stamp]], root: Path) -> None:
    for path, stamp in files:
        scan_file(path, root, stamp, limits=Limits())


def pydicom_all(files: list[tuple[Path, Stamp]]) -> None:
    for path, _ in files:
        ds = pydicom.dcmread(path, specific_tags=KEYWORDS, stop_before_pixels=True)
        for keyword in KEYWORDS:
            ds.get(keyword)


def headers(root: Path, files: list[tuple[Path, Stamp]]) -> None:
    ours = len(files) / cpu_seconds(lambda: scan_all(files, root))
    theirs = len(files) / cpu_seconds(lambda: pydicom_all(files))
    print(
        f"headers   {len(files)} files: medssl {ours:,.0f}/s, pydicom specific_tags {theirs:,.0f}/s, "
        f"ratio {ours / theirs:.1f}"
    )
    program = shutil.which("dcm2niix")
    if program is None:
        print("headers   dcm2niix is not on the path; not compared")
        return
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        subprocess.run([program, "-b", "o", "-f", "%s", "-o", out, root], capture_output=True, check=False)
        wall_s = time.perf_counter() - started
    started = time.perf_counter()
    scan_all(files, root)
    own_s = time.perf_counter() - started
    print(f"headers   wall: medssl {own_s:.2f} s, dcm2niix -b o {wall_s:.2f} s, ratio {wall_s / own_s:.1f}")


def slices(root: Path, files: list[tuple[Path, Stamp]]) -> None:
    native = []
    for path, stamp in files:
        record = parse_record(scan_file(path, root, stamp, limits=Limits()).record or "")
        if record.syntax == "1.2.840.10008.1.2.1" and record.n_frames == 1 and record.verdict is None:
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

    fast, slow = len(native) / cpu_seconds(ours), len(native) / cpu_seconds(theirs)
    print(
        f"slices    {len(native)} native files: medssl {fast:,.0f}/s, dcmread().pixel_array "
        f"{slow:,.0f}/s, ratio {fast / slow:.1f}"
    )


def second_run(files: list[tuple[Path, Stamp]], copies: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, cohort = Path(folder, "source"), Path(folder, "cohort")
        for number in range(copies):
            target = source / f"{number // 500:04d}" / f"{number:06d}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[number % len(files)][0], target)
        settings = IngestSettings(key_file=Path(folder, "key"))
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            ingest([source], cohort, settings=settings)
            seconds.append(time.perf_counter() - started)
    print(f"ingest    {copies} files: first run {seconds[0]:.1f} s, unchanged second run {seconds[1]:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--copies", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    root = arguments.root.resolve()
    found = [(folder.path / name, stamp) for folder in walk(root) for name, stamp in folder.files.items()]
    files = [(path, stamp) for path, stamp in found if scan_file(path, root, stamp, limits=Limits()).kind == "dicom"]
    headers(root, files)
    slices(root, files)
    if arguments.copies:
        second_run(files, arguments.copies)


if __name__ == "__main__":
    main()
