"""After which steps of a training something happens that does not happen after each one."""


def interval(every: int | str, total: int, *, times: int) -> int:
    """Steps between two times: as set, or automatic, for about so many `times` in `total` steps."""
    return max(1, total // times) if isinstance(every, str) else every


def is_due(done: int, total: int, *, every: int) -> bool:
    """Whether it is time after `done` steps: before the first, after every so many, and after the last."""
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
