"""Every task that ships has a page, whose generated part is what the task's class says."""

import re
import runpy
from pathlib import Path

import pytest

from medssl.config import setting_rows
from medssl.plugins import list_tasks, load_task

DOCS = Path(__file__).parents[2] / "docs"
TASKS = [entry.name for entry in list_tasks() if entry.built_in]


@pytest.fixture(scope="module")
def update():
    """What docs/update.py defines."""
    return runpy.run_path(str(DOCS / "update.py"))


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


@pytest.fixture
def page(task):
    return (DOCS / "tasks" / f"{task}.md").read_text(encoding="utf-8")


def test_generated_block_matches_class(update, task, page):
    assert f"{update['BEGIN']}\n" in page
    assert page == update["task_page"](page, task), "run `python docs/update.py`"
    assert f"| family | {load_task(task).cls.family} |" in page


def test_page_has_all_sections(task, page):
    assert page.startswith(f"# {task}\n")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert headings == ["Settings", "What to look at", "How it fails", "Citation"]
    assert f"medssl pretrain --cohort COHORT --task {task} --out RUN" in page


def test_settings_have_meanings_and_bounds(task):
    for row in setting_rows(load_task(task).cls.Config):
        assert row.meaning, f"{task}: {row.key} has no description"
        assert row.bounds or row.kind not in ("number", "whole number"), f"{task}: {row.key} has no bounds"
