"""The class behind the name of a task or an encoder, or an error that says why there is none."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medssl.errors import PluginError, UnknownNameError
from medssl.plugins.check import ENCODER_BASE, TASK_BASE, check_class
from medssl.plugins.entries import SWITCH, TaskEntry, list_encoders, list_tasks, plugins_left_out
from medssl.plugins.load import import_entry, import_file, provided
from medssl.suggest import closest


@dataclass(frozen=True)
class LoadedTask:
    """A pretext task and where it came from.

    Attributes:
        name: as `--task` takes it.
        cls: a subclass of `PretextTask`, which this package does not import: it is defined further up.
        origin: distribution and version, or file name and hash.
        path: of the single file.
        notes: plugins that failed on the way, in words.
    """

    name: str
    cls: type[Any]
    origin: str
    path: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder class from a plugin, a subclass of `Encoder`, and where it came from."""

    name: str
    cls: type[Any]
    origin: str


@dataclass(frozen=True)
class _Kind:
    """Where to look for classes of one kind, and what to call them in messages."""

    words: str
    option: str
    hook: str
    base: str
    entries: Callable[[], tuple[TaskEntry, ...]]


_TASKS = _Kind("pretext task", "--task", "medssl_pretext_tasks", TASK_BASE, list_tasks)
_ENCODERS = _Kind("encoder", "--encoder", "medssl_encoders", ENCODER_BASE, list_encoders)


def load_task(name: str, *, files: Sequence[Path] = ()) -> LoadedTask:
    """The pretext task called `name`, from an installed plugin or from one of `files`.

    Imports the plugins that announce the name, and others only where none does. A task made of others, which has a
    class method `with_plugins`, is given the files too. Raises PluginError for an unknown name (with a suggestion), for
    a name that two plugins provide, and for a plugin that fails.
    """
    match, notes = _search(name, kind=_TASKS, files=files, known=())
    with_plugins = getattr(match.cls, "with_plugins", None)
    cls = with_plugins(tuple(files)) if with_plugins and files else match.cls
    return replace(match, cls=cls, notes=notes)


def load_encoder(name: str, *, known: Sequence[str] = ()) -> LoadedEncoder:
    """The encoder called `name` from an installed plugin.

    known: names that need no plugin, for the message. Raises PluginError.
    """
    match, _ = _search(name, kind=_ENCODERS, files=(), known=known)
    return LoadedEncoder(name, match.cls, match.origin)


def tasks_in(source: TaskEntry | Path) -> tuple[LoadedTask, ...]:
    """Every pretext task of one entry point or file, imported and checked. Raises PluginError."""
    return tuple(_classes(source, _TASKS))


def encoders_in(source: TaskEntry | Path) -> tuple[LoadedEncoder, ...]:
    """Every encoder of one entry point or file, imported and checked. Raises PluginError."""
    return tuple(LoadedEncoder(encoder.name, encoder.cls, encoder.origin) for encoder in _classes(source, _ENCODERS))


def _search(
    name: str, *, kind: _Kind, files: Sequence[Path], known: Sequence[str]
) -> tuple[LoadedTask, tuple[str, ...]]:
    entries = kind.entries()
    announced = [entry for entry in entries if entry.name == name and entry.status != "off"]
    if len(announced) > 1:
        raise _clash(name, [entry.origin for entry in announced], kind)
    candidates, notes = _from_all(dict.fromkeys(file.expanduser().resolve() for file in files), kind)
    for entry in announced:
        candidates += _classes(entry, kind)  # its failure is the error: the name was asked for
    if not any(candidate.name == name for candidate in candidates):
        by_module: dict[tuple[str, str], TaskEntry] = {}
        for entry in entries:
            if not entry.built_in and entry.status != "off" and entry not in announced:
                by_module.setdefault((entry.origin, entry.module), entry)
        further, failures = _from_all(by_module.values(), kind)
        candidates, notes = candidates + further, notes + failures
    matching = [candidate for candidate in candidates if candidate.name == name]
    if len(matching) > 1:
        raise _clash(name, [candidate.origin for candidate in matching], kind)
    if not matching:
        names = {
            *known,
            *(candidate.name for candidate in candidates),
            *(entry.name for entry in entries if entry.status != "off"),
        } - {name}
        raise _unknown(name, kind, available=sorted(names), entries=entries, notes=notes)
    return matching[0], tuple(notes)


def _from_all(sources: Iterable[TaskEntry | Path], kind: _Kind) -> tuple[list[LoadedTask], list[str]]:
    candidates: list[LoadedTask] = []
    notes: list[str] = []
    for source in sources:
        try:
            candidates += _classes(source, kind)
        except PluginError as error:
            notes.append(str(error))
    return candidates, notes


def _classes(source: TaskEntry | Path, kind: _Kind) -> list[LoadedTask]:
    """Every class of this kind in an entry point or file, checked; encoders come as a LoadedTask too."""
    plugin = import_file(source) if isinstance(source, Path) else import_entry(source)
    classes: list[LoadedTask] = []
    for cls in provided(plugin, kind.hook):
        check_class(cls, base=kind.base, origin=plugin.origin)
        classes.append(LoadedTask(cls.name, cls, plugin.origin, plugin.path))  # type: ignore[attr-defined]  # check_class has checked the name
    return classes


def _clash(name: str, origins: Sequence[str], kind: _Kind) -> PluginError:
    return PluginError(
        f"Two plugins provide the same {kind.words}:\n  '{name}' is provided by {' and '.join(origins)}\n"
        "Uninstall one, or leave one out with --without-plugin."
    )


def _unknown(
    name: str, kind: _Kind, *, available: list[str], entries: Sequence[TaskEntry], notes: Sequence[str]
) -> PluginError:
    off = [entry.origin for entry in entries if entry.name == name and entry.status == "off"]
    if off:
        return PluginError(
            f"The {kind.words} '{name}' of {' and '.join(off)} is switched off by {SWITCH}={plugins_left_out()}. "
            f"Unset {SWITCH} (or drop --no-plugins) to use it."
        )
    match = closest(name, available)
    lines = [f"No {kind.words} named '{name}'." + (f" Did you mean '{match}'?" if match else "")]
    lines.append(f"Available: {', '.join(available) or 'none'}.")
    lines += [f"Note: {note}" for note in notes]
    return UnknownNameError("\n".join(lines))
