"""The one exception that a file, series or scan leaves ingest with."""

from pathlib import Path

from medssl.cohort.reasons import Reason
from medssl.errors import DataError


class Rejected(DataError):  # noqa: N818 - it reads as the verdict it is
    """A file or scan that is left out: a reason code and the values that fired it.

    `detail` carries numbers and names of header fields, never their text, so that it can be shown to anyone. The path
    is added only where a person on the machine reads it (`about`).
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}. {reason.action}")

    def __reduce__(self) -> tuple[type["Rejected"], tuple[Reason, str]]:
        return Rejected, (self.reason, self.detail)

    def about(self, path: Path) -> DataError:
        """The same as a sentence about one file, for the person who named that file."""
        return DataError(f"{path}: {self.detail} ({self.reason}). {self.reason.action}")
