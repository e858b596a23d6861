"""A model's settings as rows: for `config show`, `plugins show` and the tables in the documentation."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class SettingRow:
    """One setting: dotted key, kind of value, default (text; "required" where there is none), bounds and meaning."""

    key: str
    kind: str
    default: str
    bounds: str
    meaning: str


def setting_rows(model: type[BaseModel], *, prefix: str = "") -> list[SettingRow]:
    """A row per setting of `model`, groups flattened to dotted keys."""
    rows = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            rows += setting_rows(annotation, prefix=f"{prefix}{name}.")
            continue
        rows.append(
            SettingRow(
                f"{prefix}{name}", _kind(annotation), _default(field), _bounds(field.metadata), field.description or ""
            )
        )
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return str(list(value) if isinstance(value, tuple) else value)


_KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "none", dict: "mapping"}


def _kind(annotation: Any) -> str:
    """The values a setting takes, in words."""
    if hasattr(annotation, "__metadata__"):
        inner, *metadata = get_args(annotation)
        bounds = _bounds(metadata)
        return f"{_kind(inner)} {bounds}" if bounds else _kind(inner)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(f"'{choice}'" for choice in inner)
    if origin is dict:
        return "mapping"
    if origin in (tuple, list):
        kinds = [_kind(part) for part in inner if part is not Ellipsis]
        return f"list of {kinds[0]}" if Ellipsis in inner or origin is list else f"[{', '.join(kinds)}]"
    if inner:
        return " | ".join(_kind(part) for part in inner)
    return _KINDS.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _bounds(metadata: list[Any]) -> str:
    """Bounds as text, such as "> 0, <= 10"."""
    parts = []
    for item in metadata:
        for kind, sign, name in ((Gt, ">", "gt"), (Ge, ">=", "ge"), (Lt, "<", "lt"), (Le, "<=", "le")):
            if isinstance(item, kind):
                parts.append(f"{sign} {getattr(item, name)}")
        if hasattr(item, "metadata"):  # a FieldInfo inside Annotated holds its own list
            parts += [text for text in [_bounds(item.metadata)] if text]
    return ", ".join(parts)
