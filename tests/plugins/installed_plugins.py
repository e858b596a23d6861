"""Distributions with plugins, laid down as pip would, so that tests meet real metadata."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Install = Callable[..., Path]

TASK = '''
import medssl


class {cls}(medssl.PretextTask):
    """Does nothing."""

    name = "{task}"
    family = "test"


@medssl.hookimpl
def medssl_pretext_tasks():
    return [{cls}]
'''


def task_source(task: str, cls: str = "Task") -> str:
    """A module that provides one task."""
    return TASK.format(task=task, cls=cls)


def forget_plugins() -> None:
    """Drop the modules that an earlier test laid down, which have the same names."""
    for module in [name for name in sys.modules if name.startswith(("medssl_p1", "medssl_p2", "medssl_broken"))]:
        del sys.modules[module]


def installer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """install(distribution, {entry name: module text}, ...) makes modules importable and known to the metadata."""
    forget_plugins()
    site = folder / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(distribution: str, modules: Mapping[str, str], *, version: str = "0.1", group: str = "medssl") -> Path:
        package = distribution.replace("-", "_")
        info = site / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [f"[{group}]"]
        for number, (entry, text) in enumerate(modules.items()):
            (site / f"{package}_{number}.py").write_text(text)
            lines.append(f"{entry} = {package}_{number}")
        (info / "entry_points.txt").write_text("\n".join(lines))
        return site

    return install
