"""The pages of the tasks that compare crops say what the tasks are."""

import re

import pytest
from test_pages import PAGES, tables

from medssl.plugins import load_task

TASKS = (
    "barlow-twins", "byol", "deepercluster", "dino", "jepa", "moco", "simclr", "simsiam", "swav", "vicreg",
)  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_the_settings_table_of_a_page_is_that_of_the_config(task):
    page = PAGES / f"{task}.md"
    text = page.read_text(encoding="utf-8")
    assert "<!-- settings -->" in text
    assert text == tables().updated(page), "run `python docs/tasks/update_tables.py`"


@pytest.mark.parametrize("task", TASKS)
def test_a_page_has_every_part_of_the_catalogue(task):
    text = (PAGES / f"{task}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {task}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Command", "Settings", "What to look at", "How it fails", "Citation",
    ]  # fmt: skip
    assert f"medssl pretrain --cohort COHORT --task {task} --out RUN" in text
    assert f"family: {load_task(task).cls.family}" in text


@pytest.mark.parametrize("task", TASKS)
def test_every_setting_of_a_task_has_a_meaning_and_numbers_have_bounds(task):
    for row in tables().setting_rows(load_task(task).cls.Config):
        assert row.meaning, f"{task}: {row.key} has no description"
        assert row.bounds or row.kind not in ("number", "whole number"), f"{task}: {row.key} has no bounds"
