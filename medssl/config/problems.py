"""Pydantic's errors as sentences: what is wrong with which setting, where it came from, and what was probably meant."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from medssl.errors import ConfigError
from medssl.suggest import closest

Key = tuple[str, ...]
Config = TypeVar("Config", bound=BaseModel)


def check_options(
    model: type[Config], options: Mapping[str, Any], *, prefix: str = "", origins: Mapping[str, str] | None = None
) -> Config:
    """`model` built from `options`. Raises ConfigError that lists every problem, with keys under `prefix`.

    origins: where each dotted key (prefix included) was set, where it is known.
    """
    sources = origins or {}
    try:
        checked = model.model_validate(dict(options))
        lines = switch_lines(options, checked, prefix=prefix, origin=lambda key: sources.get(key, ""))
    except ValidationError as error:
        lines = problem_lines(model, error, prefix=prefix, origin=lambda key: sources.get(key, ""))
    if lines:
        raise config_error(lines)
    return checked


def config_error(lines: Sequence[str]) -> ConfigError:
    """All problems at once, one a line."""
    head = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return ConfigError("\n  ".join([f"{head} in the configuration:", *lines]))


def problem_lines(
    model: type[BaseModel], error: ValidationError, *, prefix: str, origin: Callable[[str], str]
) -> list[str]:
    """One line per setting that is wrong, in the order in which pydantic met them."""
    problems: dict[str, list[Any]] = {}
    for detail in error.errors(include_url=False):
        key = ".".join(_setting_key(model, detail["loc"]))
        problems.setdefault(f"{prefix}{key}", []).append(detail)
    lines = []
    for key, details in problems.items():
        source = origin(key)
        lines.append(
            f"{key or 'configuration'}: {_sentence(model, details, prefix)}" + (f"  ({source})" if source else "")
        )
    return lines


def switch_lines(
    raw: Mapping[str, Any], checked: BaseModel, *, prefix: str = "", origin: Callable[[str], str]
) -> list[str]:
    """One line per `true` or `false` that was taken for 1 or 0, which Python does without a word."""
    lines = []
    for name, value in raw.items():
        taken, key = getattr(checked, name, None), f"{prefix}{name}"
        if isinstance(taken, BaseModel) and isinstance(value, Mapping):
            lines += switch_lines(value, taken, prefix=f"{key}.", origin=origin)
        elif _is_counted(value, taken):
            source = origin(key)
            lines.append(f"{key}: input should be a number, got {value!r}" + (f"  ({source})" if source else ""))
    return lines


def _is_counted(value: Any, taken: Any) -> bool:
    if isinstance(value, Mapping) and isinstance(taken, Mapping):
        return any(_is_counted(value[key], taken.get(key)) for key in value)
    if isinstance(value, list | tuple) and isinstance(taken, list | tuple):
        return any(_is_counted(*pair) for pair in zip(value, taken, strict=False))
    return isinstance(value, bool) and isinstance(taken, int | float) and not isinstance(taken, bool)


def nearest_key(model: type[BaseModel], key: Key) -> str | None:
    """The dotted key that was probably meant by an unknown one: near in its own group first, then anywhere."""
    group: type[BaseModel] | None = model
    for part in key[:-1]:
        group = _submodel(group, part) if group else None
    if group is not None and (sibling := closest(key[-1], group.model_fields)):
        return ".".join((*key[:-1], sibling))
    begun = [name for name in (group.model_fields if group else ()) if name.startswith(key[-1])]
    if begun:
        return ".".join((*key[:-1], begun[0]))
    by_last: dict[str, str] = {}
    for dotted in _dotted_keys(model):
        by_last.setdefault(dotted.rpartition(".")[2], dotted)
    # In the whole tree, names that are merely similar are too many to suggest.
    last = closest(key[-1], by_last, min_similarity=0.75)
    return by_last[last] if last else None


def _setting_key(model: type[BaseModel], location: tuple[int | str, ...]) -> Key:
    """The setting a pydantic location belongs to: without the names of a union's members, which are not keys."""
    key: list[str] = []
    group: type[BaseModel] | None = model
    for part in location:
        if group is None:
            break
        key.append(str(part))
        group = _submodel(group, str(part))
    return tuple(key)


def _sentence(model: type[BaseModel], details: list[Any], prefix: str) -> str:
    first = details[0]
    if first["type"] == "extra_forbidden":
        meant = nearest_key(model, tuple(str(part) for part in first["loc"]))
        return (
            f"no such setting; did you mean '{prefix}{meant}'?"
            if meant
            else f"no such setting; there are {_names(model, first['loc'])}"
        )
    if counted := _wrong_count(details):
        return counted
    if first["type"] == "missing":
        return "required, but not set"
    # The members of a union complain one by one.
    wishes = list(dict.fromkeys(_wish(detail) for detail in details))
    lead = "" if first["type"] == "value_error" else "input should be "
    return f"{lead}{' or '.join(wishes)}, got {shortened(repr(first['input']))}"


def _wrong_count(details: list[Any]) -> str | None:
    """A list of another length than its setting has; pydantic misses its last values one by one."""
    missing = [detail for detail in details if detail["type"] == "missing" and isinstance(detail["loc"][-1], int)]
    if missing:
        return f"needs {missing[-1]['loc'][-1] + 1} values, got {len(missing[-1]['input'])}"
    long = next((detail["ctx"] for detail in details if detail["type"] == "too_long"), None)
    return f"needs {long['max_length']} values, got {long['actual_length']}" if long else None


# Pydantic's words for types, in the words of someone who writes YAML.
_PLAIN_WORDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "path_type": "a path",
}


def _wish(detail: Any) -> str:
    """What one member of the setting's type asks for, without "input should be"."""
    if plain := _PLAIN_WORDS.get(detail["type"]):
        return plain
    text = str(detail["msg"])
    for lead in ("Value error, ", "Input should be ", "Input should "):
        text = text.removeprefix(lead)
    return text[:1].lower() + text[1:]


def _names(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    group: type[BaseModel] | None = model
    for part in location[:-1]:
        group = _submodel(group, str(part)) if group else None
    return ", ".join(group.model_fields) if group and group.model_fields else "none here"


def _submodel(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The group of settings under `name`, also where it is optional."""
    field = model.model_fields.get(name)
    if field is None:
        return None
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name in model.model_fields:
        keys.append(f"{prefix}{name}")
        if group := _submodel(model, name):
            keys += _dotted_keys(group, f"{prefix}{name}.")
    return keys


def shortened(text: str) -> str:
    """`text`, cut to what fits into a line, without a password."""
    text = without_password(text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def without_password(text: str) -> str:
    """`text` with `***` in the place of user and password in every address, as in https://user:password@host."""
    return re.sub(r"://[^/\s'\"]*@", "://***@", text)
