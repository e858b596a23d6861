"""The house style, as far as a machine can read it: lengths, names, errors, and documentation that keeps up."""

import ast
import re
import runpy
import shlex
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from medssl import hookspecs
from medssl_cli.main import COMMANDS, app

ROOT = Path(__file__).parents[1]
FOLDERS = ("medssl", "plugins", "cli", "sample_data", "benchmarks", "tests")
SOURCE = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SHIPPED = [path for path in SOURCE if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks")]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

MAX_FILE_LINES = 400
MAX_TEST_FILE_LINES = 500  # tables of cases
MAX_FUNCTION_LINES = 60  # of code, without signature, docstring and comments
MAX_FOLDER_FILES = 20  # Python files beside __init__.py
# Names that say nothing about what is inside.
EMPTY_NAMES = ("utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "core")
# Names that say that a thing exists, or came from somewhere, instead of what it is: `slice_`, `matches`, `declared`.
FILLER_NAMES = {
    "one", "own", "found", "facts", "told", "kept", "known", "rest", "whole", "said", "place", "places", "other",
    "others", "given", "asked", "wanted", "met", "seen", "made", "left", "ready", "ours", "theirs", "here", "there",
    "both", "most", "least", "twin", "twins", "thing", "things", "way", "moment",
}  # fmt: skip
MAX_FILLER_FRACTION = 0.01
MAX_SILENT_PACKAGES = 2  # without a docstring
# "x is no y" is a calque: "x is not a y". "There is no y" and "no longer" are English.
CALQUE = re.compile(r"(?<!here )\b(?:is|are|was|were) no (?!longer\b|more\b|better\b)[a-z]+")
MAX_CALQUES = 9


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_files_are_short():
    long = {}
    for path in SOURCE:
        limit = MAX_TEST_FILE_LINES if path.is_relative_to(ROOT / "tests") else MAX_FILE_LINES
        if (count := len(path.read_text().splitlines())) > limit:
            long[name(path)] = count
    assert not long


def test_folders_hold_few_files():
    counts = Counter(path.parent for path in SHIPPED if path.name != "__init__.py")
    # A file per task: as many as pyproject.toml has entry points.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    limits = {ROOT / "plugins" / "medssl_tasks": len(project["entry-points"]["medssl"])}
    assert not {name(folder): count for folder, count in counts.items() if count > limits.get(folder, MAX_FOLDER_FILES)}


def test_packages_say_what_lives_in_them():
    packages = [path for path in SHIPPED if path.name == "__init__.py"]
    silent = {name(path) for path in packages if not ast.get_docstring(ast.parse(path.read_text()))}
    assert len(silent) <= MAX_SILENT_PACKAGES, f"say what lives in the package and what it may import: {silent}"


def test_names_say_what_things_are():
    assigned = [(word, f"{name(path)}:{line}") for path in SHIPPED for word, line in assigned_names(path)]
    fillers = [f"{place} {word}" for word, place in assigned if word.lower().strip("_") in FILLER_NAMES]
    assert len(fillers) <= MAX_FILLER_FRACTION * len(assigned), "\n".join(fillers)


def assigned_names(path: Path) -> Iterator[tuple[str, int]]:
    """Every name that the file assigns or defines, with its line."""
    for node in nodes(path):
        match node:
            case ast.Name(id=word, ctx=ast.Store()) | ast.arg(arg=word):
                yield word, node.lineno
            case ast.FunctionDef(name=word) | ast.ClassDef(name=word):
                yield word, node.lineno
            case ast.ExceptHandler(name=str(word)):
                yield word, node.lineno


def test_sentences_contain_no_calque():
    calques = [
        f"{name(path)}:{number} {line.strip()}"
        for path in SHIPPED
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if CALQUE.search(line)
    ]
    assert len(calques) <= MAX_CALQUES, "write 'is not a ...':\n" + "\n".join(calques)


def test_functions_are_short():
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in SOURCE
        for lines in [path.read_text().splitlines()]
        for node in nodes(path)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and length(node, lines) > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def length(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    text = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text)


def test_file_names_say_what_is_inside():
    assert not [name(path) for path in SOURCE if path.stem in EMPTY_NAMES or path.parent.name in EMPTY_NAMES]


def test_code_has_no_bare_except_and_no_todo():
    wrong = []
    for path in SHIPPED:
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{name(path)}:{node.lineno} bare except: name the errors")
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                wrong.append(f"{name(path)}:{number} unfinished: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_library_does_not_print():
    wrong = [
        f"{name(path)}:{node.lineno}"
        for path in SHIPPED
        if path.is_relative_to(ROOT / "medssl") or path.is_relative_to(ROOT / "plugins")
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and not any(keyword.arg == "file" for keyword in node.keywords)
    ]
    assert not wrong, f"print belongs to the command line: {wrong}"


def test_every_test_file_has_tests():
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    empty = [
        name(path) for path in files if not re.search(r"^    def test_|^def test_", path.read_text(), re.MULTILINE)
    ]
    assert not empty


def test_settings_tables_are_up_to_date():
    script = runpy.run_path(str(ROOT / "docs" / "update.py"))
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert script["configuration"](text) == text, "settings have changed: run `python docs/update.py`"
    assert "`optim.lr`" in text


def test_every_command_is_documented():
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    missing = [words for words, _ in commands() if f"medssl {words}" not in text]
    assert not missing, f"no document shows `medssl {missing[0]}`"


def test_every_hook_is_documented():
    text = (ROOT / "docs" / "plugins.md").read_text()
    hooks = [hook for hook in vars(hookspecs) if hook.startswith("medssl_")]
    assert hooks
    assert not [hook for hook in hooks if f"def {hook}()" not in text]


def test_every_public_name_is_documented():
    import medssl

    text = "".join((ROOT / "docs" / name).read_text() for name in ("plugins.md", "python.md"))
    assert not [public for public in medssl.__all__ if f"`{public}`" not in text and f"medssl.{public}" not in text]


def test_command_lines_in_documents_are_valid():
    known = dict(commands())
    wrong = []
    for path in DOCUMENTS:
        for line in shell_lines(path.read_text()):
            words = shlex.split(line.split(" # ")[0])[1:]
            while words and words[0] in ("--no-plugins", "--without-plugin"):
                words = words[2 if words[0] == "--without-plugin" else 1 :]
            command = next((" ".join(words[:length]) for length in (2, 1) if " ".join(words[:length]) in known), None)
            if command is None:
                if words and words[0] not in ("--help", "--version", "-h") and is_built(words[0]):
                    wrong.append(f"{name(path)}: {line}: no such command")
                continue
            given = {word.split("=")[0] for word in words if word.startswith("--")}
            unknown = given - known[command] - {"--help"}
            wrong += [f"{name(path)}: {line}: {command} has no option {option}" for option in sorted(unknown)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_python_in_documents_compiles(path):
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL):
        compile(block, name(path), "exec")


@pytest.mark.parametrize("document", ["configuration.md", "plugins.md"])
def test_python_in_documents_runs(document, tmp_path, monkeypatch):
    """Blocks run in order, in one namespace; one that begins with `# FILE.py` is written to that file, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace: dict[str, object] = {"__name__": "document"}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), flags=re.DOTALL):
        if found := re.match(r"# (\w+\.py)\n", block):
            Path(found[1]).write_text(block)
        exec(compile(block, document, "exec"), namespace)


def commands() -> Iterator[tuple[str, set[str]]]:
    """Every command as it is typed ("plugins list") with its options."""
    for first, command in get_command(app).commands.items():
        if not hasattr(command, "commands"):
            yield first, options(command)
            continue
        for second, inner in command.commands.items():
            yield f"{first} {second}", options(inner)


def options(command) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def is_built(command: str) -> bool:
    """Whether a command's module is there, or is none of medssl's at all."""
    return command not in dict(COMMANDS) or command in get_command(app).commands


def shell_lines(text: str) -> list[str]:
    """`medssl ...` lines of shell blocks, continued lines joined."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip().removeprefix("$ ") for line in lines if line.strip().removeprefix("$ ").startswith("medssl ")]
