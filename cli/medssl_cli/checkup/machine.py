"""Checks of versions, accelerators, codecs and disks."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from medssl_cli.checkup.result import Result, Status, Targets

SHOWN_PACKAGES = ("torch", "monai", "lightning-fabric", "mlflow", "pydicom", "blosc2")
GIGABYTE = 2**30
# SQLite relies on file locks, which are not reliable on these (https://www.sqlite.org/faq.html#q5).
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "9p")


def versions(targets: Targets) -> list[Result]:
    """Versions of Python and the libraries, against the requirements in medssl's metadata."""
    from packaging.requirements import Requirement

    results = []
    for text in requires("medssl") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f"{sys.executable} -m pip install '{requirement}'"
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            results.append(Result("versions", "failed", f"{requirement.name} is not installed", fix))
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            text = f"{requirement.name} {installed} is installed; medssl needs {requirement.specifier}"
            results.append(Result("versions", "failed", text, fix))
    if results:
        return results
    shown = ", ".join(f"{name} {version(name)}" for name in SHOWN_PACKAGES)
    return [Result("versions", "ok", f"medssl {version('medssl')}, Python {sys.version.split()[0]}, {shown}")]


def accelerators(targets: Targets) -> list[Result]:
    """GPUs that torch can use, each with a small computation, against those that the driver reports."""
    import torch

    if torch.cuda.is_available():
        return [_try_gpu(index) for index in range(torch.cuda.device_count())]
    driver = _driver_gpus()
    if driver and torch.version.cuda is None:
        text = f"torch {torch.__version__} is built without CUDA, but there is a GPU ({driver})"
        return [
            Result("gpu", "failed", text, "Install torch with the --index-url that pytorch.org names for your driver.")
        ]
    if driver:
        text = f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use the GPU ({driver})"
        return [Result("gpu", "failed", text, "Update the driver, or install torch for an older CUDA (pytorch.org).")]
    return [
        Result(
            "gpu",
            "note",
            f"no GPU; training runs on the CPU ({os.cpu_count()} cores, {torch.get_num_threads()} threads)",
        )
    ]


def _try_gpu(index: int) -> Result:
    import torch

    properties = torch.cuda.get_device_properties(index)
    name = f"GPU {index}: {properties.name}, {properties.total_memory / GIGABYTE:.0f} GB, CUDA {torch.version.cuda}"
    try:
        total = (torch.ones(2, device=f"cuda:{index}") + 1).sum().item()
    except RuntimeError as error:
        text = f"{name} does not compute: {str(error).splitlines()[0]}"
        return Result("gpu", "failed", text, "Update the driver, or install torch for this GPU (pytorch.org).")
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: precision auto is 32-true"
    return Result("gpu", "ok" if total == 4 else "failed", f"{name}, {bf16}")


def _driver_gpus() -> str:
    """GPUs and driver version as nvidia-smi reports them; empty without a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(result.stdout.strip().splitlines()) if result.returncode == 0 else ""


def codecs(targets: Targets) -> list[Result]:
    """Whether compressed DICOM frames can be decoded; lossless codecs are tested with a round trip."""
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
        return [Result("codecs", "failed", text, f"{sys.executable} -m pip install --force-reinstall imagecodecs")]
    return [Result("codecs", "ok", f"JPEG, {', '.join(round_trips)} and HTJ2K (imagecodecs {imagecodecs.__version__})")]


def _available(imagecodecs: object, codec: str) -> bool:
    return bool(getattr(getattr(imagecodecs, codec, None), "available", False))


def disks(targets: Targets) -> list[Result]:
    """Free space for runs, shared memory for the loading processes, and whether a database can lie on this disk."""
    folder = _existing_folder(targets.out)
    free = shutil.disk_usage(folder).free / GIGABYTE
    status: Status = "failed" if free < 1 else "note" if free < 10 else "ok"
    fix = "" if status == "ok" else "Free space, or write runs elsewhere with --out."
    results = [Result("disk", status, f"{free:.0f} GB free in {folder}", fix)]
    if not os.access(folder, os.W_OK):
        fix = "Change its permissions, or choose another --out."
        results.append(Result("disk", "failed", f"{folder} cannot be written", fix))
    kind = file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        text = f"{folder} lies on a network file system ({kind}), where SQLite's locks are not reliable"
        fix = "Keep the tracking store local: --set tracking.uri=sqlite:////LOCAL/PATH/mlflow.db"
        results.append(Result("disk", "note", text, fix))
    return results + _shared_memory(Path("/dev/shm"))


def _shared_memory(folder: Path) -> list[Result]:
    if not folder.is_dir():
        return []
    size = shutil.disk_usage(folder).total / GIGABYTE
    if size < 1:
        text = f"{folder} has {size:.2f} GB; loading processes hand over their batches through it"
        fix = "In a container: docker run --shm-size=8g; else --set loop.workers=0."
        return [Result("shared memory", "note", text, fix)]
    return [Result("shared memory", "ok", f"{size:.0f} GB in {folder}")]


def _existing_folder(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Type of the file system that holds `folder`; empty if the system does not report it."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    longest, kind = -1, ""
    for line in lines:
        _, mount_point, mount_kind, *_ = line.split(" ")
        mount_point = mount_point.replace("\\040", " ")
        if len(mount_point) >= longest and folder.absolute().is_relative_to(mount_point):
            longest, kind = len(mount_point), mount_kind
    return kind
