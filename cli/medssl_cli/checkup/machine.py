"""Versions, accelerators, codecs, disks."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from medssl_cli.checkup.finding import Finding, Places, Status

SHOWN = ("torch", "monai", "lightning-fabric", "mlflow", "pydicom", "blosc2")
GIGABYTE = 2**30
# SQLite relies on file locks, which these do not keep reliably (https://www.sqlite.org/faq.html#q5).
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "9p")


def versions(places: Places) -> list[Finding]:
    """Python and the libraries, against what medssl's own metadata asks for."""
    from packaging.requirements import Requirement

    findings = []
    for text in requires("medssl") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f"{sys.executable} -m pip install '{requirement}'"
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            findings.append(Finding("versions", "failed", f"{requirement.name} is not installed", fix))
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            text = f"{requirement.name} {installed} is installed; medssl needs {requirement.specifier}"
            findings.append(Finding("versions", "failed", text, fix))
    if findings:
        return findings
    named = ", ".join(f"{name} {version(name)}" for name in SHOWN)
    return [Finding("versions", "ok", f"medssl {version('medssl')}, Python {sys.version.split()[0]}, {named}")]


def accelerators(places: Places) -> list[Finding]:
    """GPUs that the driver has against GPUs that torch can use; each is asked to add two numbers."""
    import torch

    if torch.cuda.is_available():
        return [_try_gpu(index) for index in range(torch.cuda.device_count())]
    driver = _driver_gpus()
    if driver and torch.version.cuda is None:
        text = f"torch {torch.__version__} is built without CUDA, but there is a GPU ({driver})"
        return [
            Finding("gpu", "failed", text, "Install torch with the --index-url that pytorch.org names for your driver.")
        ]
    if driver:
        text = f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use the GPU ({driver})"
        return [Finding("gpu", "failed", text, "Update the driver, or install torch for an older CUDA (pytorch.org).")]
    return [
        Finding(
            "gpu",
            "note",
            f"no GPU; training runs on the CPU ({os.cpu_count()} cores, {torch.get_num_threads()} threads)",
        )
    ]


def _try_gpu(index: int) -> Finding:
    import torch

    facts = torch.cuda.get_device_properties(index)
    name = f"GPU {index}: {facts.name}, {facts.total_memory / GIGABYTE:.0f} GB, CUDA {torch.version.cuda}"
    try:
        total = (torch.ones(2, device=f"cuda:{index}") + 1).sum().item()
    except RuntimeError as error:
        text = f"{name} does not compute: {str(error).splitlines()[0]}"
        return Finding("gpu", "failed", text, "Update the driver, or install torch for this GPU (pytorch.org).")
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: precision auto is 32-true"
    return Finding("gpu", "ok" if total == 4 else "failed", f"{name}, {bf16}")


def _driver_gpus() -> str:
    """GPUs and driver as nvidia-smi tells them; empty where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(result.stdout.strip().splitlines()) if result.returncode == 0 else ""


def codecs(places: Places) -> list[Finding]:
    """Whether compressed DICOM frames can be decoded: lossless ones are written and read back."""
    import imagecodecs
    import numpy as np

    frame = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40) * 31
    round_trips: dict[str, tuple[Any, Any]] = {
        "JPEG lossless": (imagecodecs.ljpeg_encode, imagecodecs.ljpeg_decode),
        "JPEG-LS": (imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
        "JPEG 2000": (lambda array: imagecodecs.jpeg2k_encode(array, level=0), imagecodecs.jpeg2k_decode),
    }
    failed = []
    for name, (encode, decode) in round_trips.items():
        try:
            if not np.array_equal(decode(encode(frame)), frame):
                failed.append(name)
        except (RuntimeError, ImportError, AttributeError):
            failed.append(name)
    failed += [name for name, codec in (("JPEG", "JPEG8"), ("HTJ2K", "HTJ2K")) if not _available(imagecodecs, codec)]
    if failed:
        text = f"no decoder for {', '.join(failed)}: such DICOM files are rejected by ingest"
        return [Finding("codecs", "failed", text, f"{sys.executable} -m pip install --force-reinstall imagecodecs")]
    return [
        Finding("codecs", "ok", f"JPEG, {', '.join(round_trips)} and HTJ2K (imagecodecs {imagecodecs.__version__})")
    ]


def _available(imagecodecs: object, codec: str) -> bool:
    return bool(getattr(getattr(imagecodecs, codec, None), "available", False))


def disks(places: Places) -> list[Finding]:
    """Free space where runs are written, shared memory for the workers, and whether a database can lie there."""
    place = _existing(places.out)
    free = shutil.disk_usage(place).free / GIGABYTE
    status: Status = "failed" if free < 1 else "note" if free < 10 else "ok"
    fix = "" if status == "ok" else "Free space, or write runs elsewhere with --out."
    findings = [Finding("disk", status, f"{free:.0f} GB free in {place}", fix)]
    if not os.access(place, os.W_OK):
        findings.append(
            Finding("disk", "failed", f"{place} cannot be written", "Change its permissions, or choose another --out.")
        )
    kind = file_system(place)
    if kind in NETWORK_FILE_SYSTEMS:
        text = f"{place} lies on a network file system ({kind}), where SQLite's locks are not reliable"
        findings.append(
            Finding(
                "disk",
                "note",
                text,
                "Keep the tracking store local: --set tracking.uri=sqlite:////LOCAL/PATH/mlflow.db",
            )
        )
    return findings + _shared_memory(Path("/dev/shm"))


def _shared_memory(place: Path) -> list[Finding]:
    if not place.is_dir():
        return []
    size = shutil.disk_usage(place).total / GIGABYTE
    if size < 1:
        text = f"{place} has {size:.2f} GB; data workers hand their patches over through it"
        return [
            Finding(
                "shared memory", "note", text, "In a container: docker run --shm-size=8g; else --set loop.workers=0."
            )
        ]
    return [Finding("shared memory", "ok", f"{size:.0f} GB in {place}")]


def _existing(place: Path) -> Path:
    """`place`, or the nearest folder above it that exists."""
    place = place.absolute()
    while not place.is_dir():
        place = place.parent
    return place


def file_system(place: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Type of the file system that holds `place`; empty where the system does not say."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if len(point) >= best and place.absolute().is_relative_to(point):
            best, kind = len(point), found
    return kind
