"""The codes are one list: documented, with a meaning and what to do, and no code that nothing can reach."""

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
    source = "\n".join(path.read_text() for path in (ROOT / "medssl").rglob("*.py") if path.name != "reasons.py")
    unused = [code for code in Reason.__members__ if f"Reason.{code}" not in source]
    unused += [code for code in Flag.__members__ if f"Flag.{code}" not in source]
    assert unused == []
