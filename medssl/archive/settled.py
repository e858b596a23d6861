"""What the first ingest of a cohort settles for all later ones: key, split and store policy."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from medssl.archive.identity import Pseudonyms
from medssl.archive.index import Index
from medssl.archive.manifest import Split
from medssl.errors import UsageError


@dataclass(frozen=True)
class Settled:
    """Facts that may not change while a cohort grows, or patients would move between splits and scans between grids."""

    key_id: str
    seed: int
    fractions: tuple[float, float, float]
    policy: dict[str, Any]

    def splitter(self, pseudonyms: Pseudonyms, overrides: dict[str, Split]) -> "Splitter":
        """Who is in which split: by override, else by the key."""
        return Splitter(self, pseudonyms, overrides)


@dataclass(frozen=True)
class Splitter:
    """Callable from a patient's pseudonym to the split."""

    settled: Settled
    pseudonyms: Pseudonyms
    overrides: dict[str, Split]

    def __call__(self, patient_id: str) -> Split:
        """Split of a patient."""
        override = self.overrides.get(patient_id)
        return override or self.pseudonyms.split(patient_id, seed=self.settled.seed, fractions=self.settled.fractions)


def settle(index: Index, asked: Settled, *, named: frozenset[str]) -> Settled:
    """What holds for this cohort: as asked when it is new, else as before.

    named: settings that somebody gave, "policy.FIELD" for one of the store policy. Raises UsageError when one of them,
    or the key, differs from before.
    """
    text = index.fact("settled")
    if text is None:
        index.put_fact("settled", json.dumps(asdict(asked)))
        return asked
    facts = json.loads(text)
    before = Settled(facts["key_id"], facts["seed"], tuple(facts["fractions"]), facts["policy"])
    if before.key_id != asked.key_id:
        raise UsageError(
            f"the cohort was made with the pseudonym key {before.key_id}, this is {asked.key_id}. "
            "Name the right one with --key-file."
        )
    known, wishes = _by_name(before), _by_name(asked)
    for name in sorted(named & wishes.keys()):
        was, wanted = known.get(name), wishes[name]
        if was != wanted:
            raise UsageError(
                f"the cohort was made with {name.removeprefix('policy.')} {was}, not {wanted}. Leave it out, or ingest "
                "into a new folder."
            )
    return before


def _by_name(settled: Settled) -> dict[str, object]:
    policy = {f"policy.{name}": value for name, value in settled.policy.items()}
    return {"seed": settled.seed, "fractions": settled.fractions, **policy}
