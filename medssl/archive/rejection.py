"""The exception for a file, series or scan that is left out."""

from pathlib import Path

from medssl.cohort.reasons import Reason
from medssl.errors import DataError


class Rejected(DataError):  # noqa: N818 - the name states the outcome
    """A file, series or scan is left out.

    Attributes:
        reason: Why.
        detail: The values that led to it. It holds numbers and names of header fields, never their text, so that anyone
            may see it. Only `about` adds the path, for a person on this machine.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}. {reason.action}")

    def __reduce__(self) -> tuple[type["Rejected"], tuple[Reason, str]]:
        return Rejected, (self.reason, self.detail)

    def about(self, path: Path) -> DataError:
        """The same as an error about one file, for the person who named that file."""
        return DataError(f"{path}: {self.detail} ({self.reason}). {self.reason.action}")
