"""When, in a training, something is looked at that is not looked at after every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def interval(every: int | str, total: int, *, times: int) -> int:
    """Steps between two looks: as asked, or "auto", for about so many `times` in `total` steps."""
    return max(1, total // times) if isinstance(every, str) else every


def is_due(done: int, total: int, *, every: int) -> bool:
    """Whether to look after `done` steps: before the first, every so many, and after the last."""
    return done in (0, total) or done % every == 0


def is_picture_step(done: int, total: int, every: int | str) -> bool:
    """Whether to draw after `done` steps.

    Automatic: after step 1, at every power of two above 8, and at the end, about 12 in a long run.
    """
    if done in (1, total):
        return True
    if every == "auto":
        return done > 8 and done & (done - 1) == 0
    return done % int(every) == 0
