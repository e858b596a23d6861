"""The codes are one list: documented, with a meaning and what to do, and no code that nothing can reach."""

import ast
from pathlib import Path

import pytest

from medssl.cohort.reasons import Flag, Reason

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "archive.md").read_text()


@pytest.mark.parametrize("reason", list(Reason))
def test_reason_is_in_guide_word_for_word(reason):
    assert f"| `{reason}` | {reason.meaning} | {reason.action} |" in GUIDE


@pytest.mark.parametrize("flag", list(Flag))
def test_flag_is_in_guide_word_for_word(flag):
    assert f"| `{flag}` | {flag.meaning} |" in GUIDE


def test_guide_has_only_existing_codes():
    known = {*Reason.__members__, *Flag.__members__}
    rows = [
        line.split("`")[1] for line in GUIDE.splitlines() if line.startswith("| `") and line.split("`")[1].isupper()
    ]
    assert [code for code in rows if code not in known] == []


def test_every_code_is_used():
    trees = [ast.parse(path.read_text()) for path in (ROOT / "medssl").rglob("*.py") if path.name != "reasons.py"]
    attributes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {(node.value.id, node.attr) for node in attributes if isinstance(node.value, ast.Name)}
    assert {(kind.__name__, code) for kind in (Reason, Flag) for code in kind.__members__} <= used
