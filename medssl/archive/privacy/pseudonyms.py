"""Keyed pseudonyms, and the split that follows from them.

Everything is HMAC-SHA256 under one secret key, with a word for what is named, so that the same number as a patient id
and as an accession number gives unrelated pseudonyms. A plain hash would not do: hospital numbers have 7 or 8 digits
and are guessed in seconds.
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
_PLACEHOLDERS = frozenset(
    {
        "anon",
        "anonym",
        "anonymous",
        "anonymized",
        "anonymised",
        "anonymousid",
        "unknown",
        "unnamed",
        "none",
        "null",
        "na",
        "n/a",
        "nan",
        "noid",
        "no_id",
        "patient",
        "patientid",
        "subject",
        "test",
    }
)


@dataclass(frozen=True, repr=False)
class Crosswalk:
    """Ids that stand for the same patient as another one.

    same_as: (issuer, id) to (issuer, id), ids normalised. Without an issuer an id is meant whoever issued it, and the
    other one is of the same issuer.
    """

    same_as: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def __call__(self, issuer: str, patient: str) -> tuple[str, str]:
        """The (issuer, id) that stays for a patient."""
        met = {(issuer, patient)}
        while (further := self._next(issuer, patient)) not in met:
            met.add(further)
            issuer, patient = further
        return issuer, patient

    def leads_in_a_circle(self, issuer: str, patient: str) -> bool:
        """Whether an id leads back to an earlier one."""
        last = self(issuer, patient)
        return self._next(*last) != last

    def _next(self, issuer: str, patient: str) -> tuple[str, str]:
        if issuer and (issuer, patient) in self.same_as:
            return self.same_as[issuer, patient]
        other, stays = self.same_as.get(("", patient), (issuer, patient))
        return other or issuer, stays


@dataclass(frozen=True, repr=False)
class Pseudonyms:
    """Pseudonyms under one key. The key itself is never printed, logged or written to a cohort."""

    key: bytes
    crosswalk: Crosswalk = Crosswalk()

    @property
    def key_id(self) -> str:
        """Eight hex digits that tell two keys apart and give neither away."""
        return hashlib.sha256(self.key).hexdigest()[:8]

    def name(self, what: str, *parts: str) -> str:
        """26 lower-case letters and digits that stand for `parts` in the domain `what`."""
        digest = self._digest(what, *parts)
        return base64.b32encode(digest).decode().lower()[:_ID_LENGTH]

    def patient(self, issuer: str, patient_id: str) -> str:
        """Pseudonym of a patient, the same under all ids that the crosswalk knows."""
        return self.name("patient", *self.one_id(issuer, patient_id))

    def one_id(self, issuer: str, patient_id: str) -> tuple[str, str]:
        """The (issuer, id) that a patient has under all spellings, and all ids that the crosswalk knows."""
        return self.crosswalk(issuer, normalised_patient_id(patient_id))

    def share(self, what: str, *parts: str) -> float:
        """A number in [0, 1) that follows from the key and `parts` alone."""
        return int.from_bytes(self._digest(what, *parts)[:8], "big") / 2**64

    def split(self, patient_id: str, *, seed: int, fractions: tuple[float, float, float]) -> Split:
        """Split of a patient (a pseudonym): the same for all scans, whoever else is in the cohort.

        fractions: (train, val, test), adding up to 1.
        """
        share = self.share("split", str(seed), patient_id)
        if share < fractions[0]:
            return "train"
        return "val" if share < fractions[0] + fractions[1] else "test"

    def _digest(self, what: str, *parts: str) -> bytes:
        message = "\0".join((what, *parts)).encode("utf-8", "surrogatepass")
        return hmac.new(self.key, message, hashlib.sha256).digest()


def normalised_patient_id(text: str) -> str:
    """The id as one hospital writes it in several ways: without padding, in upper case."""
    return " ".join(text.split()).upper()


def is_placeholder(patient_id: str) -> bool:
    """Whether an id is blank, all one character, or a word that stands for 'nobody'."""
    text = normalised_patient_id(patient_id).lower()
    return len(set(text)) <= 1 or text in _PLACEHOLDERS


def key_file(named: Path | None = None) -> Path:
    """Where the key lies: as named, else in $MEDSSL_KEY_FILE, else ~/.medssl/pseudonym.key."""
    if named is not None:
        return named
    from_environment = os.environ.get("MEDSSL_KEY_FILE")
    return Path(from_environment) if from_environment else Path.home() / ".medssl" / "pseudonym.key"


def open_key(path: Path) -> Pseudonyms:
    """Pseudonyms under the key in `path`, which is made (mode 0600) when it does not exist.

    Raises DataError when the file is no key, UsageError when others may read it.
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
            f"{path} holds no pseudonym key ({KEY_BYTES} bytes as hex). Restore it from a copy, or "
            "name another with --key-file."
        )
    return Pseudonyms(key)


def ephemeral_pseudonyms() -> Pseudonyms:
    """Pseudonyms under a key that is never written: for runs that leave nothing behind."""
    return Pseudonyms(secrets.token_bytes(KEY_BYTES))


def _make_key(path: Path) -> None:
    """Write a new key so that no reader ever sees half of it and no one else may read it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
        try:
            os.link(partial, path)  # fails when another process was first; its key is then used
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    except OSError as error:
        raise UsageError(
            f"the pseudonym key cannot be made at {path} ({error.strerror}). Name another place with --key-file."
        ) from error
