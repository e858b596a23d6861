"""Mutated and random files, DICOM and NIfTI: each through all layers in this process, then all through an ingest.

    python benchmarks/mutated_files.py [--count 10000] [--real ../shared/data/dicom]

The mutations are those of tests/archive/test_mutated_files.py, which CI runs in a smaller number; with --real they are
made of real headers too (mosaic, enhanced, several vendors). Prints the slowest file, peak memory and the verdicts; the
ingest has one sound series among the damaged files, which must come out whole.
"""

import argparse
import gzip
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from medssl.archive.limits import Limits
from medssl.cohort.cohort import Cohort
from medssl.ingestion.archive_to_cohort import ingest
from medssl.ingestion.settings import IngestSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "archive"))
from test_mutated_files import mutated, seeds, verdict
from written_dicom import Series, random_voxels

MAX_SEED_BYTES = 250_000
REAL_PER_FOLDER = 3
SOUND = (40, 32, 12)


def sound_files(real: Path | None) -> list[tuple[bytes, bool]]:
    """(content, whether it is NIfTI) of the files that are damaged."""
    with tempfile.TemporaryDirectory() as folder:
        found = [(data, "nii" in name) for name, data in seeds(Path(folder)).items()]
    for folder in sorted(real.iterdir()) if real else ():
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size < MAX_SEED_BYTES]
        dicom = [data for path in files if (data := path.read_bytes())[128:132] == b"DICM"]
        found += [(data, False) for data in dicom[:: max(1, len(dicom) // REAL_PER_FOLDER)]]
    return found


def damage(sound: list[tuple[bytes, bool]], count: int, folder: Path) -> list[Path]:
    """Write `count` damaged files."""
    draw = np.random.default_rng(20240611)
    paths = []
    for number in range(count):
        data, is_nifti = sound[number % len(sound)]
        data = mutated(data, draw)
        if is_nifti and number % 3 == 0:
            data = gzip.compress(data, 1)
        paths.append(folder / f"{number // 500:03d}" / f"{number:05d}{'.nii' if is_nifti else ''}")
        paths[-1].parent.mkdir(exist_ok=True, parents=True)
        paths[-1].write_bytes(data)
    return paths


def through_layers(paths: list[Path]) -> dict[str, object]:
    """Every file by itself; anything that is no verdict ends this program."""
    verdicts: Counter[str] = Counter()
    slowest_s, started_s = 0.0, time.process_time()
    before = peak_mib()
    for path in paths:
        began_s = time.process_time()
        verdicts[str(verdict(path, path.read_bytes()))] += 1
        slowest_s = max(slowest_s, time.process_time() - began_s)
    return {
        "files": len(paths), "cpu_s": round(time.process_time() - started_s, 1),
        "slowest_file_cpu_s": round(slowest_s, 3), "peak_mib_before": before, "peak_mib": peak_mib(),
        "verdicts": dict(verdicts.most_common()),
    }  # fmt: skip


def through_ingest(folder: Path) -> dict[str, object]:
    """All files and one sound series as an archive."""
    Series(random_voxels(SOUND)).write(folder / "damaged" / "sound")
    limits = Limits(field_of_view_mm=5.0, worker_bytes=4 * 2**30)
    settings = IngestSettings(key_file=folder / "key", limits=limits)
    started_s = time.perf_counter()
    report = ingest([folder / "damaged"], folder / "cohort", settings=settings)
    wall_s = round(time.perf_counter() - started_s, 1)
    shapes = [row.shape for row in Cohort.open(folder / "cohort").accepted()]
    if SOUND not in shapes:
        raise SystemExit("the sound series among the damaged files was not ingested")
    return {
        "files": report.n_files, "wall_s": wall_s, "scans": report.n_scans, "rejected": report.n_rejected,
        "reasons": report.reasons, "peak_mib": peak_mib(),
    }  # fmt: skip


def peak_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--real", type=Path)
    arguments = parser.parse_args()
    from machine import machine, write_results

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = damage(sound_files(arguments.real), arguments.count, folder / "damaged")
        layers = through_layers(paths)
        print(json.dumps(layers), flush=True)
        whole = through_ingest(folder)
        print(json.dumps(whole))
    facts = {"machine": machine("pydicom", "nibabel", "imagecodecs"), "each_file": layers, "ingest": whole}
    write_results("mutated_files", facts)


if __name__ == "__main__":
    main()
