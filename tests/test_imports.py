"""Who may import whom (docs/architecture.md), read from the source; and what must stay light, seen in a process."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

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
    ("medssl_tasks", "medssl.testing", "medssl.conformance"),
    ("medssl.tracking", "medssl.downstream", "medssl.exchange"),
    ("medssl.training",),
    ("medssl.diagnostics", "medssl.pretext"),
    ("medssl.views", "medssl.encoders", "medssl.store"),
    ("medssl.archive", "medssl.runs"),
    ("medssl.geometry", "medssl.config", "medssl.errors", "medssl.randomness", "medssl.plugins", "medssl.hookspecs"),
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
    """Imports anywhere in the file but under TYPE_CHECKING, `from package import module` resolved to the module."""
    for node in _without_type_checking(ast.parse(path.read_text(encoding="utf-8"))):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(module, place, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place} imports relatively; write the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(module, place, full if full in MODULES else str(node.module))


def _without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for branch in node.orelse:
                yield branch
                yield from _without_type_checking(branch)
            continue
        yield node
        yield from _without_type_checking(node)


IMPORTS = [one for module, path in MODULES.items() for one in imports(module, path)]
OWN = tuple(SOURCES)


def area(module: str) -> str:
    """The package a tier is made of: `medssl.store` of `medssl.loading.plan`, `medssl_cli` of its modules."""
    return ".".join(module.split(".")[: 2 if module.startswith("medssl.") else 1])


def tier(module: str) -> int | None:
    return next((number for number, areas in enumerate(TIERS) if area(module) in areas), None)


def test_every_module_has_its_tier():
    lost = [name for name in MODULES if tier(name) is None and area(name) not in OUTSIDE]
    assert not lost, f"{lost} stand in no tier: say in docs/architecture.md and here where they belong"


def test_nobody_imports_upwards():
    wrong = []
    for one in IMPORTS:
        if one.target.split(".")[0] not in OWN or tier(one.module) is None or tier(one.target) is None:
            continue
        if tier(one.target) < tier(one.module):
            wrong.append(f"{one.place}: {area(one.module)} imports {one.target}")
    assert not wrong, "\n".join(wrong)


def test_the_library_imports_neither_plugins_nor_the_command_line_nor_the_phantoms():
    wrong = [
        f"{one.place}: imports {one.target}"
        for one in IMPORTS
        if one.module.split(".")[0] == "medssl"
        and one.target.split(".")[0] in ("medssl_tasks", "medssl_cli", "medssl_phantoms")
    ]
    assert not wrong, "\n".join(wrong)


def test_plugins_import_nothing_of_training_or_above():
    allowed = (
        "medssl.diagnostics",
        "medssl.pretext",
        *TIERS[5],
        "medssl.randomness",
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


def test_packages_of_one_tier_import_each_other_in_no_circle():
    graph: dict[str, set[str]] = {}
    for one in IMPORTS:
        here, there = area(one.module), area(one.target)
        if one.target.split(".")[0] == "medssl" and here != there and there != "medssl" and here != "medssl":
            graph.setdefault(here, set()).add(there)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("library", "home"),
    [("mlflow", "medssl.tracking"), ("typer", "medssl_cli"), ("rich", "medssl_cli"), ("pluggy", "medssl")],
)
def test_a_library_is_known_in_one_place_only(library, home):
    wrong = [one.place for one in IMPORTS if one.target.split(".")[0] == library and not one.module.startswith(home)]
    assert not wrong, f"{library} belongs to {home}: {wrong}"


def light_modules() -> list[str]:
    light = (
        "medssl.archive",
        "medssl.runs",
        "medssl.config",
        "medssl.plugins",
        "medssl.errors",
        "medssl.hookspecs",
        "medssl_cli",
    )
    return [name for name in MODULES if name == "medssl" or area(name) in light]


def test_archive_runs_settings_and_commands_load_no_torch():
    """Hundreds of ingest workers start quickly, and `medssl --help` returns at once."""
    code = f"import importlib, sys\nfor name in {light_modules()!r}:\n    importlib.import_module(name)\n" + (
        "    loaded = {'torch', 'monai', 'mlflow'} & set(sys.modules)\n    assert not loaded, f'{name} loads {loaded}'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_public_name_of_medssl_is_there_sorted_and_lazy():
    import medssl

    assert list(medssl.__all__) == sorted(medssl.__all__)
    assert set(medssl.__all__) == set(medssl._PLACES)
    assert set(medssl.__all__) <= set(dir(medssl))
    for name in medssl.__all__:
        assert getattr(medssl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Jigsaw'"):
        medssl.Jigsaw  # noqa: B018
