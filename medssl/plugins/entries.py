"""Plugins that installed distributions announce in their metadata; nothing is imported."""

import os
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal, Protocol, runtime_checkable

TASK_GROUP = "medssl"
ENCODER_GROUP = "medssl.encoders"
SWITCH = "MEDSSL_PLUGINS"


@runtime_checkable
class EntryPoint(Protocol):
    """The part of an entry point that is used here.

    Not the standard library's class: once the backport `importlib_metadata` is imported, which MLflow does, entry
    points are of its class.
    """

    @property
    def name(self) -> str:
        """Left of the '='."""

    @property
    def value(self) -> str:
        """Right of it: a module, or a module and an attribute."""

    @property
    def dist(self) -> Any:
        """The distribution that announces it, with name and version; None where that is unknown."""

    def load(self) -> Any:
        """Import it."""


@dataclass(frozen=True)
class TaskEntry:
    """One entry point: by convention its name is the task's name.

    Attributes:
        name: of the task or encoder.
        origin: distribution and version.
        module: the entry point's value.
        built_in: whether it ships with medssl.
        status: "off" where MEDSSL_PLUGINS leaves it out, "clash" where two that are on share the name.
        entry_point: imports the plugin.
    """

    name: str
    origin: str
    module: str
    built_in: bool
    status: Literal["ok", "clash", "off"]
    entry_point: EntryPoint = field(repr=False, compare=False)


def list_tasks() -> tuple[TaskEntry, ...]:
    """Every pretext task that an installed distribution announces, sorted by name; imports none of them."""
    return _entries(TASK_GROUP)


def list_encoders() -> tuple[TaskEntry, ...]:
    """Every encoder that an installed plugin announces (the built-in ones need no plugin); imports none of them."""
    return _entries(ENCODER_GROUP)


def plugins_left_out() -> str:
    """The value of MEDSSL_PLUGINS; empty where all plugins are on.

    `none` leaves only what ships with medssl. A comma-separated list of distributions or names leaves only those on
    beside the built-in ones. A minus in front of a name leaves it out.
    """
    return os.environ.get(SWITCH, "").strip()


def _entries(group: str) -> tuple[TaskEntry, ...]:
    points = sorted(entry_points(group=group), key=lambda point: (point.name, _distribution(point)))
    switch = plugins_left_out()
    on = [_is_on(point, switch) for point in points]
    names = Counter(point.name for point, is_on in zip(points, on, strict=True) if is_on)
    return tuple(
        _entry(point, is_on=is_on, shared=names[point.name] > 1) for point, is_on in zip(points, on, strict=True)
    )


def _entry(point: EntryPoint, *, is_on: bool, shared: bool) -> TaskEntry:
    return TaskEntry(
        name=point.name,
        origin=f"{_distribution(point)} {point.dist.version}" if point.dist else _distribution(point),
        module=point.value,
        built_in=_distribution(point) == "medssl",
        status="off" if not is_on else "clash" if shared else "ok",
        entry_point=point,
    )


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown distribution"


def _is_on(point: EntryPoint, switch: str) -> bool:
    words = [_normal(word) for word in switch.split(",") if word.strip()]
    names = {_normal(point.name), _normal(_distribution(point))}
    if names & {word[1:] for word in words if word.startswith("-")}:
        return False
    selected = {word for word in words if not word.startswith("-")}
    return _distribution(point) == "medssl" or not selected or bool(names & selected)


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-")
