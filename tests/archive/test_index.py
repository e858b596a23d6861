"""What the index finds by itself, on disk, against the plain way in memory."""

import os
import random
from pathlib import Path

from medssl.archive.index.database import open_index
from medssl.archive.index.entries import IndexedScan
from medssl.archive.index.path_text import path_text, text_path
from medssl.archive.index.planned_scan import Outcome
from medssl.cohort.reasons import Reason


def test_duplicates_keep_labelled_scan_then_smallest_id(tmp_path):
    draw = random.Random(3)
    outcomes: dict[str, Outcome | None] = {}
    for number in range(300):
        content = draw.choice("abcdefgh") * 64
        kind = draw.randrange(6)
        outcome = Outcome(None, "", labels=(0, 1) if kind == 0 else (), content_hash=content)
        outcomes[f"scan-{number:03d}"] = {4: None, 5: Outcome(Reason.TRUNCATED, "short")}.get(kind, outcome)
    expected = set()
    for scan_id, outcome in outcomes.items():
        if outcome and outcome.content_hash:
            same = [key for key, other in outcomes.items() if other and other.content_hash == outcome.content_hash]
            labelled = [key for key in same if outcomes[key].labels]
            if scan_id != min(labelled or same):
                expected.add(scan_id)
    with open_index(tmp_path) as index:
        shuffled = draw.sample(sorted(outcomes), len(outcomes))
        for scan_id in shuffled:
            index.plan(scan_id, [IndexedScan(scan_id, scan_id, "{}", "{}", "")])
            if outcomes[scan_id] is not None:
                index.put_outcome(scan_id, outcomes[scan_id])
        assert index.duplicates() == expected
    assert len(expected) > 100


def test_marks_are_of_last_call(tmp_path):
    with open_index(tmp_path) as index:
        index.mark(["a", "b", "b"])
        assert [index.is_marked(name) for name in "abc"] == [True, True, False]
        index.mark(["c"])
        assert [index.is_marked(name) for name in "abc"] == [False, False, True]


def test_path_text_round_trip():
    names = (
        b"plain",
        b"M\xfcller",
        "Müller".encode(),
        b"\xff\xfe",
        "\U0010fffd00dcfc".encode(),
        b"a\xf4\x8f\xbf\xbd\xe9",
    )
    for name in names:
        path = Path("/archive", os.fsdecode(name), "x")
        assert text_path(path_text(path)) == path
        path_text(path).encode()
    assert len({path_text(os.fsdecode(name)) for name in names}) == len(names)
    assert path_text("/archive/Müller/x") == "/archive/Müller/x"
