"""Checks of a plugin's class, and of the options for a task."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from medssl.config.problems import check_options
from medssl.errors import PluginError

NAME_PATTERN = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")

# Compared by name, so that this module stands below the packages that hold these classes and loads no torch.
TASK_BASE = "medssl.pretext.task.PretextTask"
ENCODER_BASE = "medssl.encoders.encoder.Encoder"


def check_class(cls: type, *, base: str, origin: str) -> None:
    """Raise PluginError where `cls` does not derive from `base`, or lacks a name that a command line can carry."""
    if base not in {f"{parent.__module__}.{parent.__qualname__}" for parent in cls.__mro__[1:]}:
        base_name = base.rpartition(".")[2]
        raise PluginError(
            f"{cls.__qualname__} of {origin} does not derive from medssl.{base_name}. "
            f"Write `class {cls.__name__}(medssl.{base_name})`."
        )
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not NAME_PATTERN.match(name):
        raise PluginError(
            f"{cls.__qualname__} of {origin} has the name {name!r}. "
            "Give it a class attribute such as name = 'masked-cubes' (lower-case letters, digits and hyphens)."
        )
    if base == TASK_BASE:
        _check_config(cls, origin=origin)


def _check_config(cls: Any, *, origin: str) -> None:
    config, title = cls.Config, f"Config of {cls.__qualname__} of {origin}"
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise PluginError(f"{title} does not derive from medssl.TaskConfig. Write `class Config(medssl.TaskConfig)`.")
    if config.model_config.get("extra") != "forbid" or not config.model_config.get("frozen"):
        raise PluginError(
            f"{title} accepts unknown keys, or can be changed. "
            "Derive it from medssl.TaskConfig, and leave model_config as it is."
        )
    if "name" in config.model_fields:
        raise PluginError(
            f"{title} has a setting 'name', which names the task itself. Choose another name for the setting."
        )


def task_config(cls: Any, options: Mapping[str, Any], *, origins: Mapping[str, str] | None = None) -> Any:
    """`cls.Config` built from a configuration's `task:` group, without its key `name`.

    Raises ConfigError that lists every problem, unknown keys with a suggestion, keys as in the file (`task.ratio`).
    """
    settings = {key: value for key, value in options.items() if key != "name"}
    return check_options(cls.Config, settings, prefix="task.", origins=origins)
