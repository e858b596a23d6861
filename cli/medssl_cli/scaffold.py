"""New plugins from the templates beside this file."""

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

# Template, and its path inside the project.
PROJECT_FILES = (
    ("pyproject.toml.txt", "pyproject.toml"),
    ("README.md.txt", "README.md"),
    ("ci.yml.txt", ".github/workflows/check.yml"),
)
TASK_FILES = (("task.py.txt", "{module}.py"), ("test_task.py.txt", "tests/test_{identifier}.py"))
ENCODER_FILES = (("encoder.py.txt", "{module}.py"), ("test_encoder.py.txt", "tests/test_{identifier}.py"))


@dataclass(frozen=True)
class Names:
    """The forms of a plugin's name: `masked-cubes`, MaskedCubes, medssl-masked-cubes, medssl_masked_cubes."""

    name: str
    is_encoder: bool = False

    @property
    def values(self) -> dict[str, str]:
        """Values of the templates' placeholders."""
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
    """Write FOLDER/NAME.py, a working task, and return its path. Raises UsageError if it exists."""
    values = _names(name).values
    path = folder / f"{values['identifier']}.py"
    if path.exists():
        raise UsageError(f"{path} exists. Choose another name, or another folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(_filled("task.py.txt", values), encoding="utf-8")
    return path


def write_package(name: str, folder: Path, *, encoder: bool = False) -> Path:
    """Write FOLDER/medssl-NAME, a project with a task or an encoder, a test and a CI workflow, and return its path.

    Raises UsageError if it exists.
    """
    values = _names(name, encoder=encoder).values
    project = folder / values["distribution"]
    if project.exists():
        raise UsageError(f"{project} exists. Choose another name, or another folder with --out.")
    for template, relative_path in (*PROJECT_FILES, *(ENCODER_FILES if encoder else TASK_FILES)):
        path = project / relative_path.format_map(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(template, values), encoding="utf-8")
    return project


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)


def _names(name: str, *, encoder: bool = False) -> Names:
    kind = "encoder" if encoder else "task"
    names = Names(name, is_encoder=encoder)
    if not NAME.match(name) or keyword.iskeyword(name):
        raise UsageError(
            f"'{name}' is not a valid name for a {kind}. Use lower-case letters, digits and hyphens: masked-cubes."
        )
    if keyword.iskeyword(names.values["cls"]):
        raise UsageError(
            f"'{name}' is not a valid name for a {kind}: its class would have the name {names.values['cls']}, a Python "
            "keyword. Choose another name."
        )
    taken = {entry.name: entry.origin for entry in (list_encoders() if encoder else list_tasks())}
    if encoder:
        from medssl.encoders.shipped import shipped_encoders

        taken |= dict.fromkeys(shipped_encoders(), "medssl")
    if name in taken:
        raise UsageError(
            f"There is {'an' if encoder else 'a'} {kind} '{name}' already, from {taken[name]}. Choose another name."
        )
    return names
