"""Running the checks of an encoder."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from medssl.conformance.encoder_bench import EncoderBench
from medssl.conformance.encoder_checks import ENCODER_CHECKS
from medssl.conformance.kit import Outcome, outcome
from medssl.encoders.encoder import Encoder


def encoder_checks_of(
    cls: type[Encoder], *, options: Mapping[str, Any] | None = None, preset: str = "tiny"
) -> dict[str, Callable[[], None]]:
    """Every check of an encoder by name, each ready to be called; a failing one raises."""
    bench = EncoderBench(cls, options=options, preset=preset)
    return {check.__name__: partial(check, bench) for check in ENCODER_CHECKS}


def run_encoder_checks(
    cls: type[Encoder], *, options: Mapping[str, Any] | None = None, preset: str = "tiny"
) -> Iterator[Outcome]:
    """The outcome of every check, each as soon as it is known."""
    bench = EncoderBench(cls, options=options, preset=preset)
    for check in ENCODER_CHECKS:
        yield outcome(check, partial(check, bench))
