"""Which settings and metadata may be sent to MLflow, and under names that MLflow accepts."""

import re
from collections.abc import Mapping
from typing import Any

from medssl.runs.privacy import could_be_path, flat_settings, is_private

# MLflow's limits (mlflow.utils.validation, mlflow.utils.name_utils): one name or value beyond them fails its
# whole batch.
NAME_LIMIT, PARAM_LIMIT, TAG_LIMIT = 250, 6000, 8000
# Sent as written, separators included ("and/or"): --note and docs/review.md say so.
_FREE_TEXT = {"reviewer_note"}


def metric_name(key: str) -> str:
    """A name that MLflow accepts for a metric; a plugin's terms may be called anything."""
    return _inside(re.sub(r"[^0-9A-Za-z_\-. :/]", "_", key))


def picture_name(key: str) -> str:
    """A name that MLflow accepts for a picture."""
    return _inside(re.sub(r"[^0-9A-Za-z_\-. /]", "_", key))


def _inside(key: str) -> str:
    # MLflow refuses names that would resolve to another when read as a path.
    return "/".join(part for part in key.split("/") if part.strip() and part not in (".", ".."))[:NAME_LIMIT] or "_"


def setting_params(config: Mapping[str, Any]) -> dict[str, str]:
    """`optim.lr` and its value as text, without anything that is or could be a path."""
    settings = flat_settings(config).items()
    return {metric_name(key): str(value)[:PARAM_LIMIT] for key, value in settings if not is_private(key, value)}


def plain_tags(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Scalar metadata as `medssl.<name>`, without anything that could be a path."""
    scalars = {key: str(value) for key, value in metadata.items() if isinstance(value, str | int | float | bool)}
    return {
        f"medssl.{metric_name(key)}"[:NAME_LIMIT]: value[:TAG_LIMIT]
        for key, value in scalars.items()
        if key in _FREE_TEXT or not could_be_path(value)
    }
