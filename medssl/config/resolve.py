"""Defaults, then files in order, then `--set`, then flags; every value remembers where it came from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from medssl.config.problems import config_error, problem_lines, shortened, switch_lines, without_password
from medssl.config.yaml_text import parse_yaml, read_yaml
from medssl.errors import ConfigError

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Resolved(Generic[T]):
    """A configuration and, by dotted key, where each value that is not a default came from."""

    config: T
    origins: Mapping[str, str]


@dataclass(frozen=True)
class RawSettings:
    """What files, `--set` and flags say, unchecked: the tree, the origin per dotted key, and what could not be read."""

    tree: dict[str, Any]
    origins: dict[str, str]
    problems: tuple[str, ...] = ()

    def origin(self, key: str) -> str:
        """Where `key`, or the value it lies in or holds, was set; empty for a default."""
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            if origin := self.origins.get(".".join(parts[:length])):
                return origin
        return next((source for held, source in self.origins.items() if held.startswith(f"{key}.")), "")


def load_config(
    model: type[T], *, files: Sequence[Path] = (), settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> T:
    """The configuration that `resolve_config` gives, without the origins."""
    return resolve_config(model, files=files, settings=settings, flags=flags).config


def as_config(model: type[T], config: T | Mapping[str, Any]) -> T:
    """A configuration as it is, or the one that a mapping of (dotted) setting to value describes.

    Raises ConfigError that lists every problem of the mapping at once.
    """
    if not isinstance(config, Mapping):
        return config
    raw = RawSettings(tree={}, origins={})
    _merge(raw, config, source="")
    return _checked(model, raw).config


def resolve_config(
    model: type[T], *, files: Sequence[Path] = (), settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> Resolved[T]:
    """Defaults < `files` in order < `settings` ("a.b=c", as after --set) < `flags` (dotted key to value; None means
    not given).

    Raises ConfigError that lists every problem at once, each with its origin; UsageError where a file is missing.
    """
    return _checked(model, gather(files=files, settings=settings, flags=flags))


def _checked(model: type[T], raw: RawSettings) -> Resolved[T]:
    problems = list(raw.problems)
    try:
        config = model.model_validate(raw.tree)
        problems += switch_lines(raw.tree, config, origin=raw.origin)
    except ValidationError as error:
        problems += problem_lines(model, error, prefix="", origin=raw.origin)
    if problems:
        raise config_error(problems)
    return Resolved(config=config, origins=raw.origins)


def gather(*, files: Sequence[Path], settings: Sequence[str], flags: Mapping[str, Any] | None) -> RawSettings:
    """The tree of all settings, the later over the earlier."""
    raw = RawSettings(tree={}, origins={})
    for path in files:
        _merge(raw, read_yaml(path), source=str(path))
    problems = []
    for text in settings:
        try:
            key, value = _parse_setting(text)
        except ConfigError as error:
            problems.append(str(error))
            continue
        _put(raw, key, value, source=f"--set {shortened(text)}")
    for key, value in (flags or {}).items():
        if value is not None:
            _merge(raw, {key: value}, source=_flag_name(key))
    return RawSettings(raw.tree, raw.origins, tuple(problems))


def _parse_setting(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator or not key or not all(key.split(".")):
        raise ConfigError(f"--set {without_password(text)}: not of the form KEY=VALUE, such as --set optim.lr=1e-4")
    return key, parse_yaml(value, source=f"--set {without_password(text)}")


def _merge(raw: RawSettings, tree: Mapping[str, Any], *, source: str, prefix: str = "") -> None:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            _merge(raw, value, source=source, prefix=f"{key}.")
        else:
            _put(raw, key, _plain(value), source=source)


def _put(raw: RawSettings, key: str, value: Any, *, source: str) -> None:
    """Set one value; what stood under or over it gives way, but for a word that stood for a whole group: its name."""
    *groups, last = key.split(".")
    branch = raw.tree
    for depth, group in enumerate(groups, start=1):
        held = branch.get(group)
        if not isinstance(held, dict):
            branch[group] = {"name": held} if isinstance(held, str) else {}
            origin = raw.origins.pop(".".join(groups[:depth]), None)
            if origin and branch[group]:
                raw.origins[".".join((*groups[:depth], "name"))] = origin
        branch = branch[group]
    for old in [held for held in raw.origins if held == key or held.startswith(f"{key}.")]:
        del raw.origins[old]
    branch[last] = value
    raw.origins[key] = source


def _plain(value: Any) -> Any:
    """As a file would have it: tuples are lists, paths are text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, tuple) else value


def _flag_name(key: str) -> str:
    """`--steps` for loop.steps, `--task` for task.name: as the commands call them."""
    *groups, last = key.split(".")
    name = groups[-1] if last == "name" and groups else last
    return f"--{name.replace('_', '-')}"
