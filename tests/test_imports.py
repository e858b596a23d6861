"""Who may import whom (docs/architecture.md), read from the source; and what must stay light, seen in a process."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    "medssl": ROOT,
    "medssl_tasks": ROOT / "plugins",
    "medssl_cli": ROOT / "cli",
    "medssl_phantoms": ROOT / "sample_data",
}

# Top to bottom: a module imports from its own tier and from those below.
TIERS = (
    ("medssl_cli",),
    ("medssl.api", "medssl_tasks", "medssl.testing"),
    ("medssl.tracking", "medssl.downstream", "medssl.exchange"),
    ("medssl.training", "medssl.ingestion"),
    ("medssl.diagnostics", "medssl.pretext", "medssl.conformance"),
    ("medssl.views", "medssl.encoders", "medssl.loading"),
    ("medssl.archive", "medssl.store", "medssl.runs"),
    ("medssl.cohort",),
    (
        "medssl.geometry",
        "medssl.config",
        "medssl.errors",
        "medssl.files",
        "medssl.formats",
        "medssl.progress",
        "medssl.randomness",
        "medssl.shapes",
        "medssl.suggest",
        "medssl.plugins",
        "medssl.hookspecs",
    ),
)
# The archive's rooms, top to bottom in the same way.
ARCHIVE_ROOMS = (
    ("plan",),
    ("voxels",),
    ("labels",),
    ("scan", "privacy"),
    ("index", "nifti"),
    ("sources", "series"),
    ("dicom", "workers"),
    ("checks", "limits", "rejection"),
)
# Beside the tiers: the lazy list of public names, and the phantoms, which know nothing of medssl.
OUTSIDE = ("medssl", "medssl_phantoms")


@dataclass(frozen=True)
class Import:
    """One import statement: module, line, and what it imports."""

    module: str
    place: str
    target: str


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in SOURCES.items():
        for path in sorted((folder / package).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str, path: Path) -> Iterator[Import]:
    """Imports anywhere in the file, those for type checking too; `from package import module` means the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        line = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(module, line, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{line} imports relatively; write the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(module, line, full if full in MODULES else str(node.module))


IMPORTS = [one for module, path in MODULES.items() for one in imports(module, path)]
OWN = tuple(SOURCES)


def area(module: str) -> str:
    """The package a tier is made of: `medssl.store` of `medssl.loading.plan`, `medssl_cli` of its modules."""
    return ".".join(module.split(".")[: 2 if module.startswith("medssl.") else 1])


def tier(module: str) -> int | None:
    return next((number for number, areas in enumerate(TIERS) if area(module) in areas), None)


def test_every_module_has_a_tier():
    lost = [name for name in MODULES if tier(name) is None and area(name) not in OUTSIDE]
    assert not lost, f"{lost} stand in no tier: say in docs/architecture.md and here where they belong"


def test_imports_go_downwards():
    wrong = []
    for one in IMPORTS:
        if one.target.split(".")[0] not in OWN or tier(one.module) is None or tier(one.target) is None:
            continue
        if tier(one.target) < tier(one.module):
            wrong.append(f"{one.place}: {area(one.module)} imports {one.target}")
    assert not wrong, "\n".join(wrong)


def test_library_imports_no_plugins_cli_or_phantoms():
    wrong = [
        f"{one.place}: imports {one.target}"
        for one in IMPORTS
        if one.module.split(".")[0] == "medssl"
        and one.target.split(".")[0] in ("medssl_tasks", "medssl_cli", "medssl_phantoms")
    ]
    assert not wrong, "\n".join(wrong)


def test_plugins_import_nothing_above_pretext():
    allowed = (
        "medssl.diagnostics",
        "medssl.pretext",
        *TIERS[5],
        "medssl.randomness",
        "medssl.shapes",
        "medssl.errors",
        "medssl.hookspecs",
        "medssl.plugins",  # `combine` takes other tasks by name
        "medssl.geometry",
        "medssl",
    )
    wrong = [
        f"{one.place}: imports {one.target}"
        for one in IMPORTS
        if one.module.startswith("medssl_tasks")
        and one.target.split(".")[0] == "medssl"
        and area(one.target) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_archive_rooms_import_downwards():
    room_tier = {room: number for number, rooms in enumerate(ARCHIVE_ROOMS) for room in rooms}

    def room(module: str) -> int | None:
        return room_tier.get(module.split(".")[2]) if module.startswith("medssl.archive.") else None

    wrong = []
    for statement in IMPORTS:
        here, there = room(statement.module), room(statement.target)
        if here is not None and there is not None and there < here:
            wrong.append(f"{statement.place}: imports {statement.target}")
    assert not wrong, "\n".join(wrong)
    assert {name.split(".")[2] for name in MODULES if name.startswith("medssl.archive.")} == set(room_tier)


def circle_of(node: Callable[[str], str]) -> list[str]:
    """A circle of imports among the nodes of the modules, the facade `medssl` aside; empty where there is none."""
    graph: dict[str, set[str]] = {}
    for statement in IMPORTS:
        if statement.target in MODULES and "medssl" not in (statement.module, statement.target):
            here, there = node(statement.module), node(statement.target)
            if here != there:
                graph.setdefault(here, set()).add(there)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def package(module: str) -> str:
    """The folder a module lies in; a module beside the packages stands for itself."""
    path = MODULES[module]
    return module if path.name == "__init__.py" or module.count(".") == 1 else module.rpartition(".")[0]


def test_files_form_no_import_circle():
    assert not circle_of(lambda module: module)


def test_packages_form_no_import_circle():
    assert not circle_of(package)


def test_library_does_not_import_its_facade():
    inside = [one.place for one in IMPORTS if one.target == "medssl" and one.module.split(".")[0] == "medssl"]
    assert not inside


@pytest.mark.parametrize(
    ("library", "home"),
    [("mlflow", "medssl.tracking"), ("typer", "medssl_cli"), ("rich", "medssl_cli"), ("pluggy", "medssl")],
)
def test_library_is_imported_in_one_package_only(library, home):
    wrong = [one.place for one in IMPORTS if one.target.split(".")[0] == library and not one.module.startswith(home)]
    assert not wrong, f"{library} belongs to {home}: {wrong}"


def light_modules() -> list[str]:
    light = (
        "medssl.archive",
        "medssl.cohort",
        "medssl.runs",
        "medssl.config",
        "medssl.plugins",
        "medssl.tracking",  # and with it `downstream.comparison`, which it reads
        "medssl.errors",
        "medssl.hookspecs",
        "medssl_cli",
    )
    return [name for name in MODULES if name == "medssl" or area(name) in light]


def test_light_packages_load_no_torch():
    """Hundreds of ingest workers start quickly, and `medssl --help` returns at once."""
    code = f"import importlib, sys\nfor name in {light_modules()!r}:\n    importlib.import_module(name)\n" + (
        "    loaded = {'torch', 'monai', 'mlflow'} & set(sys.modules)\n    assert not loaded, f'{name} loads {loaded}'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_public_names_are_complete_sorted_and_lazy():
    import medssl

    assert list(medssl.__all__) == sorted(medssl.__all__)
    assert set(medssl.__all__) <= set(dir(medssl))
    for name in medssl.__all__:
        assert getattr(medssl, name) is not None
    with pytest.raises(AttributeError, match="No medssl attribute Jigsaw"):
        medssl.Jigsaw  # noqa: B018


def test_benchmarks_import_names_that_exist():
    """They run by hand, so that nothing else would notice a name that has changed."""
    missing = []
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in SOURCES:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                missing += [f"{path.name}: {name}" for name in names if not exists(name)]
    assert not missing, "\n".join(missing)


def exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    return name in MODULES or (module in MODULES and hasattr(importlib.import_module(module), attribute))


LAZY_PACKAGES = sorted(name for name, path in MODULES.items() if path.with_suffix(".pyi").exists())


@pytest.mark.parametrize("name", LAZY_PACKAGES)
def test_packages_hand_out_what_their_stub_lists(name):
    package = importlib.import_module(name)
    for public in package.__all__:
        value = getattr(package, public)
        assert not isinstance(value, ModuleType), f"{name}.{public} is a module, which shadows the name"


def test_import_of_medssl_is_light():
    """Fast enough for a shell prompt: no torch, and few modules beside the standard library's."""
    code = "import sys; before = set(sys.modules); import medssl; print(*sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.split(".")[0] for module in result.stdout.split()} - set(sys.stdlib_module_names)
    assert loaded == {"medssl", "lazy_loader"}
