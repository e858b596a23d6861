"""What the first ingest of a cohort fixes for all later ones: key, split and store policy for good, rules until others
are named.
"""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from medssl.archive.index.database import Index
from medssl.archive.privacy.pseudonyms import Pseudonyms
from medssl.cohort.manifest import Split
from medssl.errors import UsageError

_KEY = "cohort_settings"


@dataclass(frozen=True)
class CohortSettings:
    """Settings of a cohort that outlast an ingest.

    Attributes:
        key_id, seed, fractions: may not change while a cohort grows, or patients would move between splits.
        policy: `StorePolicy` as JSON; may not change either, or scans would lie on different grids.
        rules: by which series are judged; they hold until somebody names others.
    """

    key_id: str
    seed: int
    fractions: tuple[float, float, float]
    policy: dict[str, Any]
    rules: dict[str, Any]

    def by_name(self) -> dict[str, object]:
        """Settings that may not change, by the names that `fix_settings` is given."""
        policy = {f"policy.{name}": value for name, value in self.policy.items()}
        return {"seed": self.seed, "fractions": self.fractions, **policy}


COHORT_SETTINGS = TypeAdapter(CohortSettings)


@dataclass(frozen=True)
class SplitAssigner:
    """Callable from a patient's pseudonym to the split: as somebody overrides it, else by the key."""

    settings: CohortSettings
    pseudonyms: Pseudonyms
    overrides: dict[str, Split]

    def __call__(self, patient_id: str) -> Split:
        """Split of a patient."""
        override = self.overrides.get(patient_id)
        return override or self.pseudonyms.split(patient_id, seed=self.settings.seed, fractions=self.settings.fractions)


def fix_settings(index: Index, requested: CohortSettings, *, named: frozenset[str]) -> tuple[CohortSettings, list[str]]:
    """The settings of a cohort, as requested when it is new, else as before; and a sentence for each rule that changes.

    Args:
        index: of the cohort.
        requested: what this ingest was called with, defaults included.
        named: settings that somebody gave, "policy.FIELD" for one of the store policy.

    Raises:
        UsageError: where the key, or a named setting other than a rule, differs from before.
    """
    text = index.metadata(_KEY)
    if text is None:
        index.put_metadata(_KEY, COHORT_SETTINGS.dump_json(requested).decode())
        return requested, []
    before = COHORT_SETTINGS.validate_json(text)
    if before.key_id != requested.key_id:
        raise UsageError(
            f"the cohort was made with the pseudonym key {before.key_id}, this is {requested.key_id}. "
            "Name the right one with --key-file."
        )
    fixed, wishes = before.by_name(), requested.by_name()
    for name in sorted(named & wishes.keys()):
        if fixed.get(name) != wishes[name]:
            raise UsageError(
                f"the cohort was made with {name.removeprefix('policy.')} {fixed.get(name)}, not {wishes[name]}. Leave "
                "it out, or ingest into a new folder."
            )
    rules = before.rules | {name: value for name, value in requested.rules.items() if name in named}
    settings = replace(before, rules=rules)
    if settings != before:
        index.put_metadata(_KEY, COHORT_SETTINGS.dump_json(settings).decode())
    notices = [
        f"{name} is {rules[name]} from now on, not {was}. All series are judged anew."
        for name, was in before.rules.items()
        if rules[name] != was
    ]
    return settings, notices
