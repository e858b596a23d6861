"""How often each scan is drawn: groups of the manifest balanced against each other, and factors for some of them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from medssl.cohort.manifest import ManifestRow
from medssl.config import SamplingConfig
from medssl.errors import ConfigError
from medssl.suggest import closest

# A column with more values than this is not listed whole in an error.
LISTED = 12


def scan_weights(rows: Sequence[ManifestRow], sampling: SamplingConfig) -> list[float] | None:
    """Relative frequency of each scan; None for settings without `balance` and `factors`, under which every scan comes
    once per epoch.

    Raises ConfigError for a factor on a value that no scan has, and for factors that leave no scan to draw.
    """
    if not sampling.balance and not sampling.factors:
        return None
    weights = [1.0] * len(rows)
    if sampling.balance:
        groups = ["/".join(getattr(row, column) for column in sampling.balance) for row in rows]
        weights = balanced_weights(groups, power=sampling.power)
    for column, factors in sampling.factors.items():
        values = [str(getattr(row, column)) for row in rows]
        _check_known(column, factors, Counter(values))
        weights = [weight * factors.get(value, 1.0) for weight, value in zip(weights, values, strict=True)]
    if not any(weights):
        raise ConfigError("sampling.factors leave no scan to draw: all are 0. Give one value a factor above 0.")
    return weights


def balanced_weights(groups: Sequence[str], *, power: float = 0.5) -> list[float]:
    """Weights per scan that draw each group in proportion to its number of scans to the `power`.

    1 keeps the proportions of the cohort, 0 draws all groups equally often, 0.5 lifts the small ones.
    """
    counts = Counter(groups)
    return [counts[group] ** (power - 1.0) for group in groups]


def _check_known(column: str, factors: Mapping[str, float], values: Counter[str]) -> None:
    for value in factors:
        if value in values:
            continue
        match = closest(value, values)
        hint = f"did you mean '{match}'? " if match else ""
        listed = ", ".join(f"'{name}' ({count} scans)" for name, count in values.most_common(LISTED))
        more = ", ..." if len(values) > LISTED else ""
        raise ConfigError(
            f"sampling.factors.{column} names '{value}', which no scan of these splits has; {hint}"
            f"They have {listed}{more}."
        )
