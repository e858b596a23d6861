"""Pretext tasks and encoders from installed plugins and single files.

Listing reads metadata only; loading happens by name.
"""

from medssl.plugins.check import task_config
from medssl.plugins.choose import LoadedEncoder, LoadedTask, encoders_in, load_encoder, load_task, tasks_in
from medssl.plugins.entries import TaskEntry, list_encoders, list_tasks, plugins_left_out

__all__ = [
    "LoadedEncoder",
    "LoadedTask",
    "TaskEntry",
    "encoders_in",
    "list_encoders",
    "list_tasks",
    "load_encoder",
    "load_task",
    "plugins_left_out",
    "task_config",
    "tasks_in",
]
