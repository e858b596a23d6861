"""A configuration as YAML that explains itself: every setting with its value, its meaning and its origin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from medssl.config.problems import config_error, problem_lines
from medssl.config.resolve import RawSettings, gather
from medssl.config.setting_rows import SettingRow, setting_rows
from medssl.config.yaml_text import dump_yaml

COMMENT_COLUMN = 40


def explained_yaml(
    model: type[BaseModel],
    *,
    files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> str:
    """Every setting of `model` as YAML with comments; a required setting without a value is a comment.

    Once those lines are filled in, the text is a configuration file. Raises ConfigError for everything else that is
    wrong.
    """
    raw = gather(files=files, settings=settings, flags=flags)
    values = _checked(model, raw)
    rows = {row.key: row for row in setting_rows(model)}
    return "\n".join(_lines(values, rows, raw, prefix="")) + "\n"


def _checked(model: type[BaseModel], raw: RawSettings) -> dict[str, Any]:
    """All values, required ones that are not set as None."""
    fields = model.model_fields.items()
    required = {name: (_or_none(field), None) for name, field in fields if field.is_required()}
    lenient: type[BaseModel] = create_model("Lenient", __base__=model, **required)  # type: ignore[call-overload]
    problems = list(raw.problems)
    try:
        values = lenient.model_validate(raw.tree).model_dump(mode="json")
    except ValidationError as error:
        problems += problem_lines(model, error, prefix="", origin=raw.origin)
    if problems:
        raise config_error(problems)
    return {name: values[name] for name in model.model_fields}


def _or_none(field: FieldInfo) -> Any:
    """The type of a field, validators included, or None."""
    kind: Any = field.annotation
    if field.metadata:
        kind = Annotated[(kind, *field.metadata)]
    return kind | None


def _lines(values: Mapping[str, Any], rows: Mapping[str, SettingRow], raw: RawSettings, *, prefix: str) -> list[str]:
    indent = "  " * prefix.count(".")
    lines = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        row = rows.get(key)
        if row is None:  # a group of settings
            lines += [f"{indent}{name}:", *_lines(value, rows, raw, prefix=f"{key}.")]
        elif value is None and row.default == "required":
            lines.append(_with_comment(f"# {name}:", f"required: {row.meaning}"))
        else:
            text = dump_yaml({name: value}).rstrip("\n")
            first, *following = [f"{indent}{line}" for line in text.split("\n")]
            lines += [_with_comment(first, _comment(row, raw)), *following]
    return lines


def _comment(row: SettingRow, raw: RawSettings) -> str:
    origin = raw.origin(row.key)
    bounds = f" ({row.bounds})" if row.bounds else ""
    return f"{row.meaning}{bounds}{f' [{origin}, default {row.default}]' if origin else ''}"


def _with_comment(text: str, comment: str) -> str:
    return f"{text:<{COMMENT_COLUMN}}  # {' '.join(comment.split())}"
