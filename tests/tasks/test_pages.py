"""The pages of the task catalogue say what the tasks are."""

import importlib.util
import re
from pathlib import Path

import pytest

from medssl.plugins import load_task

PAGES = Path(__file__).parents[2] / "docs" / "tasks"
TASKS = (
    "adversarial", "colorization", "combine", "denoising", "jigsaw", "masked-volume", "patch-context",
    "pseudo-segmentation", "rotation", "slice-order", "sparse-coding", "vae",
)  # fmt: skip


def tables():
    spec = importlib.util.spec_from_file_location("update_tables", PAGES / "update_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", TASKS)
def test_the_settings_table_is_that_of_the_tasks_config(task):
    page = PAGES / f"{task}.md"
    text = page.read_text(encoding="utf-8")
    assert "<!-- settings -->" in text
    assert text == tables().updated(page), "run `python docs/tasks/update_tables.py`"


@pytest.mark.parametrize("task", TASKS)
def test_a_page_has_the_idea_the_command_the_pictures_the_ways_to_fail_and_the_citation(task):
    text = (PAGES / f"{task}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert text.startswith(f"# {task}\n")
    assert headings == ["Command", "Settings", "What to look at", "How it fails", "Citation"]
    assert f"medssl pretrain --cohort COHORT --task {task} --out RUN" in text
    assert f"family: {load_task(task).cls.family}" in text


@pytest.mark.parametrize("task", TASKS)
def test_every_setting_has_a_meaning_and_numbers_have_bounds(task):
    for row in tables().setting_rows(load_task(task).cls.Config):
        assert row.meaning, f"{task}: {row.key} has no description"
        if row.kind in ("number", "whole number"):
            assert row.bounds, f"{task}: {row.key} has no bounds"
