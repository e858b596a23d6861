"""Writing a new plugin from the templates that lie beside this file."""

import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from medssl import __version__
from medssl.errors import UsageError
from medssl.plugins import list_encoders, list_tasks

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")

# Template, and where it goes inside a package.
AROUND = (
    ("pyproject.toml.txt", "pyproject.toml"),
    ("README.md.txt", "README.md"),
    ("ci.yml.txt", ".github/workflows/check.yml"),
)
TASK = (("task.py.txt", "{module}.py"), ("test_task.py.txt", "tests/test_{identifier}.py"))
ENCODER = (("encoder.py.txt", "{module}.py"), ("test_encoder.py.txt", "tests/test_{identifier}.py"))


@dataclass(frozen=True)
class Names:
    """What a plugin's name becomes elsewhere: `masked-cubes`, MaskedCubes, medssl-masked-cubes, medssl_masked_cubes."""

    name: str
    is_encoder: bool = False

    @property
    def values(self) -> dict[str, str]:
        """The words that the templates ask for."""
        identifier = self.name.replace("-", "_")
        major, minor, *_ = __version__.split(".")
        return {
            "name": self.name,
            "kind": "encoder" if self.is_encoder else "pretext task",
            "group": '"medssl.encoders"' if self.is_encoder else "medssl",
            "use": f"--task masked-volume --encoder {self.name}" if self.is_encoder else f"--task {self.name}",
            "title": self.name.replace("-", " ").capitalize(),
            "cls": "".join(part.capitalize() for part in self.name.split("-")),
            "identifier": identifier,
            "distribution": f"medssl-{self.name}",
            "module": f"medssl_{identifier}",
            "version": f"{major}.{minor}",
            # Before 1.0 a minor release may change the interface.
            "next_version": f"0.{int(minor) + 1}" if major == "0" else str(int(major) + 1),
        }


def write_file(name: str, folder: Path) -> Path:
    """Write FOLDER/NAME.py, a working task, and return its path. Raises UsageError where it exists already."""
    values = _names(name).values
    path = folder / f"{values['identifier']}.py"
    if path.exists():
        raise UsageError(f"{path} exists. Choose another name, or another folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(_filled("task.py.txt", values), encoding="utf-8")
    return path


def write_package(name: str, folder: Path, *, encoder: bool = False) -> Path:
    """Write FOLDER/medssl-NAME, a project that pip installs, with a test and CI. Raises UsageError where it exists.

    encoder: an encoder instead of a pretext task.
    """
    values = _names(name, encoder=encoder).values
    project = folder / values["distribution"]
    if project.exists():
        raise UsageError(f"{project} exists. Choose another name, or another folder with --out.")
    for template, place in (*AROUND, *(ENCODER if encoder else TASK)):
        path = project / place.format_map(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(template, values), encoding="utf-8")
    return project


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)


def _names(name: str, *, encoder: bool = False) -> Names:
    kind = "encoder" if encoder else "task"
    names = Names(name, is_encoder=encoder)
    if not NAME.match(name) or keyword.iskeyword(name):
        raise UsageError(f"'{name}' is no name for a {kind}. Use lower-case letters, digits and hyphens: masked-cubes.")
    if keyword.iskeyword(names.values["cls"]):
        raise UsageError(
            f"'{name}' is no name for a {kind}: Python keeps {names.values['cls']} for itself. Choose another."
        )
    taken = {entry.name: entry.origin for entry in (list_encoders() if encoder else list_tasks())}
    if encoder:
        from medssl.encoders.build import ENCODERS

        taken |= dict.fromkeys(ENCODERS, "medssl itself")
    if name in taken:
        raise UsageError(
            f"There is {'an' if encoder else 'a'} {kind} '{name}' already, from {taken[name]}. Choose another name."
        )
    return names
