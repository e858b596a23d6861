"""Import an entry point or a Python file, and ask its hook for classes."""

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from medssl import hookspecs
from medssl.errors import PluginError, UsageError
from medssl.plugins.entries import TaskEntry
from medssl.suggest import closest

HOOKS = ("medssl_pretext_tasks", "medssl_encoders")


@dataclass(frozen=True)
class Plugin:
    """An imported plugin.

    Attributes:
        origin: distribution and version, or file name and hash.
        carrier: the module or object that carries the hooks.
        path: of a single file.
    """

    origin: str
    carrier: Any
    path: Path | None = None


def import_entry(entry: TaskEntry) -> Plugin:
    """The plugin behind an entry point. Raises PluginError with the cause attached where it fails to import."""
    try:
        return Plugin(origin=entry.origin, carrier=entry.entry_point.load())
    except (Exception, SystemExit) as error:
        raise failed_to_load(entry.origin, error) from error


def import_file(path: Path) -> Plugin:
    """The plugin in one Python file. Raises UsageError where it cannot be read, PluginError where it fails to import.

    The text that is hashed is the text that runs: it is compiled from memory, and no `__pycache__` appears beside the
    file.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The plugin file {path} cannot be read ({error.strerror}). Check its path.") from error
    digest = hashlib.sha256(source).hexdigest()
    origin, name = f"{path.name} sha256:{digest[:16]}", f"medssl_plugin_{path.stem.replace('-', '_')}_{digest[:16]}"
    if name in sys.modules:
        return Plugin(origin=origin, carrier=sys.modules[name], path=path)
    module = ModuleType(name)
    module.__file__ = str(path)
    # Pickle and typing.get_type_hints look a class's module up by name.
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise failed_to_load(path.name, error) from error
    return Plugin(origin=origin, carrier=module, path=path)


def provided(plugin: Plugin, hook: str) -> tuple[type, ...]:
    """The classes that a plugin's hook returns; empty where it only has the other hook.

    Every plugin gets its own manager, so that one plugin's failure does not stop another. Raises PluginError for
    misspelt hooks and for anything but classes.
    """
    manager = pluggy.PluginManager("medssl")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin.carrier, name=plugin.origin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(_misspelt(plugin, error)) from error
    if not manager.get_hookcallers(plugin.carrier):
        raise PluginError(_no_hook(plugin))
    try:
        answers = getattr(manager.hook, hook)()
        classes = [cls for answer in answers for cls in _as_classes(plugin, hook, answer)]
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{hook} of {plugin.origin} failed ({type(error).__name__}: {error}). Correct the plugin."
        ) from error
    return tuple(classes)


def failed_to_load(origin: str, error: BaseException) -> PluginError:
    """One sentence for a plugin whose import raised."""
    return PluginError(f"{origin} failed to load ({type(error).__name__}: {error}); see `medssl plugins check`.")


def _as_classes(plugin: Plugin, hook: str, answer: Any) -> list[type]:
    if not isinstance(answer, Iterable) or isinstance(answer, (str, bytes)):
        raise PluginError(f"{hook} of {plugin.origin} returns {answer!r}. Return a list of classes, such as [MyTask].")
    classes = list(answer)
    for cls in classes:
        if not isinstance(cls, type):
            raise PluginError(f"{hook} of {plugin.origin} returns {cls!r}. Return classes, not instances: [MyTask].")
    return classes


def _misspelt(plugin: Plugin, error: pluggy.PluginValidationError) -> str:
    unknown = [name for name in _callable_names(plugin.carrier) if name.startswith("medssl_") and name not in HOOKS]
    for name in unknown:
        return f"{plugin.origin} implements '{name}', which is not a hook.{_suggestion(name)}"
    return (
        f"{plugin.origin} implements a hook wrongly: {' '.join(str(error).split())}. See docs/plugins.md for the hooks."
    )


def _no_hook(plugin: Plugin) -> str:
    for name in _callable_names(plugin.carrier):
        if name in HOOKS:
            return f"{plugin.origin} has {name}, but not as a hook. Write @medssl.hookimpl above it."
        if name.startswith("medssl_"):
            return f"{plugin.origin} has '{name}', which is not a hook.{_suggestion(name)}"
    return f"{plugin.origin} has no hook. Add `@medssl.hookimpl` and `def medssl_pretext_tasks(): return [MyTask]`."


def _callable_names(carrier: Any) -> list[str]:
    return [name for name in dir(carrier) if callable(getattr(carrier, name, None))]


def _suggestion(name: str) -> str:
    match = closest(name, HOOKS)
    return f" Did you mean '{match}'?" if match else f" The hooks are {' and '.join(HOOKS)}."
