"""Keyed pseudonyms, and the split that follows from them.

Everything is HMAC-SHA256 under one secret key. A domain word in each message makes the pseudonyms of one number as a
patient id and as a study id unrelated. A plain hash would not protect anybody: hospital numbers have 7 or 8 digits, and
all of them are tried in seconds.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medssl.cohort.manifest import Split
from medssl.errors import DataError, UsageError

KEY_BYTES = 32
_ID_LENGTH = 26
_PLACEHOLDERS = frozenset({
    "anon", "anonym", "anonymous", "anonymized", "anonymised", "anonymousid", "unknown", "unnamed", "none", "null",
    "na", "n/a", "nan", "noid", "no_id", "patient", "patientid", "subject", "test",
})  # fmt: skip


@dataclass(frozen=True, repr=False)
class Crosswalk:
    """Several ids of one patient.

    Attributes:
        same_as: (issuer, id) to the (issuer, id) that replaces it, ids normalised. An empty issuer stands for every
            issuer; its replacement then has the same issuer.
    """

    same_as: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def __call__(self, issuer: str, patient: str) -> tuple[str, str]:
        """The (issuer, id) at the end of a patient's chain of replacements."""
        visited = {(issuer, patient)}
        while (replacement := self._next(issuer, patient)) not in visited:
            visited.add(replacement)
            issuer, patient = replacement
        return issuer, patient

    def has_cycle(self, issuer: str, patient: str) -> bool:
        """Whether the chain of an id returns to an earlier id."""
        last = self(issuer, patient)
        return self._next(*last) != last

    def _next(self, issuer: str, patient: str) -> tuple[str, str]:
        if issuer and (issuer, patient) in self.same_as:
            return self.same_as[issuer, patient]
        new_issuer, new_patient = self.same_as.get(("", patient), (issuer, patient))
        return new_issuer or issuer, new_patient


@dataclass(frozen=True, repr=False)
class Pseudonyms:
    """Pseudonyms under one key. The key itself is never printed, logged or written to a cohort."""

    key: bytes
    crosswalk: Crosswalk = Crosswalk()

    @property
    def key_id(self) -> str:
        """Eight hex digits that distinguish keys without revealing them."""
        return hashlib.sha256(self.key).hexdigest()[:8]

    def name(self, domain: str, *parts: str) -> str:
        """A pseudonym of 26 lower-case letters and digits for `parts`."""
        digest = self._digest(domain, *parts)
        return base64.b32encode(digest).decode().lower()[:_ID_LENGTH]

    def patient(self, issuer: str, patient_id: str) -> str:
        """Pseudonym of a patient, the same under all ids that the crosswalk knows."""
        return self.name("patient", *self.canonical_id(issuer, patient_id))

    def canonical_id(self, issuer: str, patient_id: str) -> tuple[str, str]:
        """The one (issuer, id) for all spellings and all ids of a patient that the crosswalk knows."""
        return self.crosswalk(issuer, normalised_patient_id(patient_id))

    def uniform(self, domain: str, *parts: str) -> float:
        """A number in [0, 1) that depends on the key and `parts` alone."""
        return int.from_bytes(self._digest(domain, *parts)[:8], "big") / 2**64

    def split(self, patient_id: str, *, seed: int, fractions: tuple[float, float, float]) -> Split:
        """Split of a patient (a pseudonym), independent of the other patients of the cohort.

        fractions: (train, val, test), adding up to 1.
        """
        position = self.uniform("split", str(seed), patient_id)
        if position < fractions[0]:
            return "train"
        return "val" if position < fractions[0] + fractions[1] else "test"

    def _digest(self, domain: str, *parts: str) -> bytes:
        message = "\0".join((domain, *parts)).encode("utf-8", "surrogatepass")
        return hmac.new(self.key, message, hashlib.sha256).digest()


def normalised_patient_id(text: str) -> str:
    """The common form of an id that one hospital writes in several ways: without padding, in upper case."""
    return " ".join(text.split()).upper()


def is_placeholder(patient_id: str) -> bool:
    """Whether an id is blank, all one character, or a word that stands for 'nobody'."""
    text = normalised_patient_id(patient_id).lower()
    return len(set(text)) <= 1 or text in _PLACEHOLDERS


def key_file(path: Path | None = None) -> Path:
    """Path of the key: `path`, else $MEDSSL_KEY_FILE, else ~/.medssl/pseudonym.key."""
    if path is not None:
        return path
    from_environment = os.environ.get("MEDSSL_KEY_FILE")
    return Path(from_environment) if from_environment else Path.home() / ".medssl" / "pseudonym.key"


def open_key(path: Path) -> Pseudonyms:
    """Pseudonyms under the key in `path`, which is created (mode 0600) when it does not exist.

    Raises DataError when the file holds no key, UsageError when others may read it.
    """
    if not path.exists():
        _make_key(path)
    try:
        mode, text = path.stat().st_mode, path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a pseudonym key. Name another with --key-file.") from error
    if mode & 0o077:
        raise UsageError(f"{path} can be read by others (mode {mode & 0o777:o}). Run: chmod 600 {path}")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise DataError(
            f"{path} does not hold a pseudonym key ({KEY_BYTES} bytes as hex). Restore it from a copy, or "
            "name another with --key-file."
        )
    return Pseudonyms(key)


def ephemeral_pseudonyms() -> Pseudonyms:
    """Pseudonyms under a random key that is never written: for runs that leave nothing behind."""
    return Pseudonyms(secrets.token_bytes(KEY_BYTES))


def _make_key(path: Path) -> None:
    """Write a new key, readable by its owner only, so that other processes see all of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
        try:
            os.link(partial, path)  # fails where another process was first, whose key is then used
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    except OSError as error:
        raise UsageError(
            f"the pseudonym key cannot be created at {path} ({error.strerror}). Name another path with --key-file."
        ) from error
