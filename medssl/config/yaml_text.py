"""YAML as people mean it: `1e-3` is a number, `no` and `on` are words, a key stands once.

PyYAML follows YAML 1.1, where `1e-3` is text, `012` is ten and `on` is true. Reading and writing here follow the core
schema of
YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema). What is written means the same to readers of either version.
"""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from medssl.errors import ConfigError, UsageError

_SCALARS = (
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2, without repeated keys, and without aliases: one may hold itself, and a
    few of them make a tree that fills the memory.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not read; write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is not a word", problem_mark=key_node.start_mark)
            if key in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key}' stands there twice", problem_mark=key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which YAML 1.1 or 1.2 takes for something else; flat lists lie on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def _as_decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _on_one_line(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    flat = all(not isinstance(item, (list, dict)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Loader.add_constructor("tag:yaml.org,2002:int", _as_decimal)  # the inherited one reads 012 as octal
_Dumper.add_representer(list, _on_one_line)


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping of a YAML file; an empty file is an empty mapping.

    Raises UsageError where the file cannot be read, ConfigError with line and column where it is not YAML.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"There is no configuration file {path}. Check the path of --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}). A configuration is a text file in YAML.") from error
    tree = parse_yaml(text, source=str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} holds a {type(tree).__name__} at its top, not settings. Write lines such as 'patch: auto'."
        )
    return tree


def parse_yaml(text: str, *, source: str) -> Any:
    """Value of a YAML text. Raises ConfigError that names `source` and the position."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{position}: not valid YAML ({error.problem}). Correct the line.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML ({error}). Correct the text.") from error


def dump_yaml(tree: Any) -> str:
    """YAML text of plain values; `parse_yaml` gives them back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def dump_config(config: BaseModel) -> str:
    """The whole configuration as YAML, defaults included; loading it gives an equal configuration."""
    return dump_yaml(config.model_dump(mode="json"))
