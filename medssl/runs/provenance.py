"""Which software made a run. No user, host or path: only what tells whether two runs can be compared."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("medssl", "torch", "monai", "lightning-fabric", "numpy", "blosc2", "mlflow")


def versions() -> dict[str, str]:
    """Release of Python and of every installed package that numbers may depend on."""
    releases = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            releases[name] = version(name)
        except PackageNotFoundError:
            continue
    return releases


def code() -> dict[str, str | bool]:
    """Git commit of medssl's own source and whether it was changed since; empty for an installed wheel."""
    source = Path(__file__).resolve().parent.parent
    # An environment may lie inside somebody else's repository, whose commit says nothing about medssl.
    if _git(source, "ls-files", "--error-unmatch", "errors.py") is None:
        return {}
    commit, changes = _git(source, "rev-parse", "HEAD"), _git(source, "status", "--porcelain", "--", ".")
    if commit is None:
        return {}
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
