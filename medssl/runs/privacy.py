"""The one rule for what may leave a run folder, or be repeated in its record: nothing that could be a path.

File names of hospitals carry names and numbers of patients.
"""

from collections.abc import Mapping
from typing import Any

# Settings that hold a path by their meaning, even where it is one word.
PRIVATE_SETTINGS = frozenset({"cohort", "init", "plugins", "tracking.uri"})


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted key; a list is one value."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            values |= flat_settings(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


def is_private(key: str, value: Any) -> bool:
    """Whether a setting, by its dotted key, is or could be a path."""
    return key in PRIVATE_SETTINGS or could_be_path(value)


def could_be_path(value: Any) -> bool:
    """Whether a value, or one inside a list or mapping, has a separator of folders or begins with '~'."""
    if isinstance(value, Mapping):
        return any(could_be_path(part) for part in (*value, *value.values()))
    if isinstance(value, list | tuple | set):
        return any(could_be_path(part) for part in value)
    text = str(value)
    return "/" in text or "\\" in text or text.startswith("~")
