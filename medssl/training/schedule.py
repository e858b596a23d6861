"""When, in a training, something is looked at that is not looked at after every step."""


def interval(every: int | str, total: int, *, times: int) -> int:
    """Steps between two looks: as asked, or "auto", for about so many `times` in `total` steps."""
    return max(1, total // times) if isinstance(every, str) else every


def is_due(done: int, total: int, *, every: int) -> bool:
    """Whether to look after `done` steps: before the first, every so many, and after the last."""
    return done in (0, total) or done % every == 0
