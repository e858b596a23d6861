"""Names of settings in format 1 of a run and their names of today, with which config.yaml of an old run is read."""

from collections.abc import Mapping
from typing import Any

# By dotted key.
SETTINGS: Mapping[str, str] = {
    "optim.warmup_share": "optim.warmup_fraction",
    "optim.final_lr_share": "optim.min_lr_ratio",
    "encoder_lr_share": "encoder_lr_scale",
    "labels": "num_labelled",
    "probe.labels": "probe.num_labelled",
}
# By name of a pretext task: its own settings, below `task:`.
TASK_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "adversarial": {"ratio": "mask_ratio", "fooling": "adversarial_weight", "restraint": "score_penalty"},
    "barlow-twins": {"reach": "max_offset", "off_weight": "off_diagonal_weight"},
    "byol": {"reach": "max_offset"},
    "deepercluster": {"reach": "max_offset", "every": "recluster_every"},
    "dino": {"reach": "max_offset", "frozen_share": "frozen_fraction", "masked_share": "mask_ratio"},
    "jepa": {"block_volume": "block_fraction"},
    "jigsaw": {"orders": "permutations", "copies": "permutations_per_patch"},
    "masked-volume": {"ratio": "mask_ratio"},
    "moco": {"reach": "max_offset"},
    "pseudo-segmentation": {"place": "position_weight", "settle": "recluster_fraction", "hidden": "mask_ratio"},
    "rotation": {"copies": "rotations_per_patch"},
    "simclr": {"reach": "max_offset"},
    "simsiam": {"reach": "max_offset"},
    "sparse-coding": {"prediction": "prediction_weight"},
    "swav": {"reach": "max_offset", "frozen_share": "frozen_fraction"},
    "vicreg": {
        "reach": "max_offset",
        "invariance": "invariance_weight",
        "variance": "variance_weight",
        "covariance": "covariance_weight",
    },
}


def with_new_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run in today's names; those that have them already stay as they are."""
    renamed = _renamed(settings, prefix="")
    task = renamed.get("task")
    if isinstance(task, Mapping):
        names = TASK_SETTINGS.get(str(task.get("name")), {})
        renamed["task"] = {names.get(key, key): value for key, value in task.items()}
    return renamed


def _renamed(settings: Mapping[str, Any], *, prefix: str) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        content = _renamed(value, prefix=f"{key}.") if isinstance(value, Mapping) else value
        renamed[SETTINGS.get(key, key).removeprefix(prefix)] = content
    return renamed
