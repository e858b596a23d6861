"""Formats of files on disk: medssl reads the formats that it writes and refuses any other in one sentence."""

from medssl.errors import DataError, MedsslError


def check_format(
    name: object,
    found: object,
    expected: int | str,
    *,
    writer: object,
    remedy: str,
    error: type[MedsslError] = DataError,
) -> None:
    """Raise an error that says what to do where the format of a file is not the one that this medssl reads.

    Args:
        name: The file.
        found: Its format; None where it records none.
        expected: The format that this medssl writes and reads.
        writer: The version of medssl that it names as its writer; None or empty where it names none.
        remedy: What to do, without a full stop. Where another medssl is the writer, installing that one is offered too.
        error: What to raise.

    Raises:
        MedsslError: `error`, where the format is another.
    """
    if found == expected:
        return
    from importlib.metadata import version  # workers, which read without it, start faster

    current = version("medssl")
    number = "an unnumbered format" if found is None else f"format {found}"
    wrote = f"medssl {writer}" if writer else "a medssl before 0.1"
    other = f", or install medssl {writer}" if writer and writer != current else ""
    raise error(f"{name} has {number}, written by {wrote}; medssl {current} reads format {expected}: {remedy}{other}.")
