"""What a figure was measured on, and how figures are written down."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine(*packages: str) -> dict[str, object]:
    """Processor, cores, load, versions."""
    found = {}
    for package in ("python", "torch", "numpy", *packages):
        try:
            found[package] = platform.python_version() if package == "python" else version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpu(),
        "versions": found,
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def cpu_ms(calls: list[Callable[[], object]], *, repeats: int = 1) -> float:
    """Median CPU milliseconds of a call; the calls are the same work at other places. Robust on a busy machine."""
    times = []
    for _ in range(repeats):
        for call in calls:
            started = time.process_time()
            call()
            times.append(time.process_time() - started)
    return 1e3 * statistics.median(times)


def write_results(name: str, facts: dict[str, object]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    return path
