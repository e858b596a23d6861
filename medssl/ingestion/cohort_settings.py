"""What one ingest of a cohort settles for all later ones: key, split and store policy for good, rules until others are
named.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from medssl.archive.index.database import Index
from medssl.archive.privacy.pseudonyms import Pseudonyms
from medssl.cohort.manifest import Split
from medssl.errors import UsageError


@dataclass(frozen=True)
class Settled:
    """Facts that may not change while a cohort grows, or patients would move between splits and scans between grids;
    and the rules by which series are judged, which hold until somebody names others.
    """

    key_id: str
    seed: int
    fractions: tuple[float, float, float]
    policy: dict[str, Any]
    rules: dict[str, Any]

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


def settle(index: Index, asked: Settled, *, named: frozenset[str]) -> tuple[Settled, list[str]]:
    """What holds for this cohort: as asked when it is new, else as before. With a sentence for each rule that changes.

    named: settings that somebody gave, "policy.FIELD" for one of the store policy. Raises UsageError when one of them
    that is no rule, or the key, differs from before.
    """
    text = index.fact("settled")
    if text is None:
        index.put_fact("settled", json.dumps(asdict(asked)))
        return asked, []
    facts = json.loads(text)
    before = Settled(facts["key_id"], facts["seed"], tuple(facts["fractions"]), facts["policy"], facts["rules"])
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
    rules = before.rules | {name: value for name, value in asked.rules.items() if name in named}
    if rules != before.rules:
        index.put_fact("settled", json.dumps(asdict(replace(before, rules=rules))))
    notices = [
        f"{name} is {rules[name]} from now on, not {was}. All series are judged anew."
        for name, was in before.rules.items()
        if rules[name] != was
    ]
    return replace(before, rules=rules), notices


def _by_name(settled: Settled) -> dict[str, object]:
    policy = {f"policy.{name}": value for name, value in settled.policy.items()}
    return {"seed": settled.seed, "fractions": settled.fractions, **policy}
