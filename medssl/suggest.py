"""Suggestions for misspelt names."""

from collections.abc import Iterable
from difflib import get_close_matches

# Low enough that "monai" suggests "monai-bundle", whose similarity is 0.59.
MIN_SIMILARITY = 0.5


def closest(word: str, choices: Iterable[str], *, min_similarity: float = MIN_SIMILARITY) -> str | None:
    """The choice most similar to a misspelt word, None where none is similar (difflib's ratio, 0 to 1)."""
    matches = get_close_matches(word, list(choices), n=1, cutoff=min_similarity)
    return matches[0] if matches else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """How a sentence about an unknown word ends: "; did you mean 'x'?", or a full stop where nothing is similar."""
    match = closest(word, choices)
    return f"; did you mean '{match}'?" if match else "."
