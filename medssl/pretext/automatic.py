"""What a task's own settings that are "auto" come to, in words."""

from medssl.pretext.task import PretextTask
from medssl.shapes import Shape3D

AUTO = "auto"


def automatic_settings(task: PretextTask, *, patch: Shape3D, steps: int) -> dict[str, str]:
    """By the name of each setting that is "auto": its value and the rule, which its description gives after "auto:".

    What `task.automatic` says beyond its settings, as a combination does of its parts, is taken as it is.
    """
    known, fields = task.automatic(patch, steps), type(task).Config.model_fields
    said: dict[str, str] = {}
    for name, field in fields.items():
        if getattr(task.config, name, None) == AUTO:
            rule = (field.description or "").rpartition("auto: ")[2].rstrip(".")
            said[name] = f"{known[name]}: {rule}" if name in known else rule
    return said | {name: str(value) for name, value in known.items() if name not in fields}
