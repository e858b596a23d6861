"""The conformance kit for authors of pretext tasks and encoders.

    from medssl.testing import parametrize_with_checks

    @parametrize_with_checks([MaskedCubes])
    def test_masked_cubes(check):
        check()

gives one pytest id per check; `parametrize_with_encoder_checks` does so for encoders. `medssl plugins check` runs the
same checks from the command line.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medssl.conformance.encoder_checks import encoder_checks_of, run_encoder_checks
from medssl.conformance.kit import Outcome, checks_of, run_checks
from medssl.conformance.tiny_encoder import TinyEncoder
from medssl.conformance.workbench import Workbench
from medssl.encoders.encoder import Encoder
from medssl.pretext.task import PretextTask

__all__ = [
    "Outcome",
    "TinyEncoder",
    "Workbench",
    "parametrize_with_checks",
    "parametrize_with_encoder_checks",
    "run_checks",
    "run_encoder_checks",
]


def parametrize_with_checks(
    tasks: Sequence[type[PretextTask]], *, options: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator for a test with one argument, `check`: a pytest id per task and check.

    options: settings of the task that differ from its defaults.
    """
    return _parametrize({cls.name: checks_of(cls, options=options) for cls in tasks})


def parametrize_with_encoder_checks(
    encoders: Sequence[type[Encoder]], *, options: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator for a test with one argument, `check`: a pytest id per encoder and check.

    options: of the encoder, that differ from its defaults or its preset 'tiny'.
    """
    return _parametrize({cls.__name__: encoder_checks_of(cls, options=options) for cls in encoders})


def _parametrize(
    checks: Mapping[str, Mapping[str, Callable[[], None]]],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    import pytest

    cases = [
        pytest.param(check, id=f"{cls_name}: {name.replace('_', ' ')}")
        for cls_name, named in checks.items()
        for name, check in named.items()
    ]
    decorator: Callable[[Callable[..., None]], Callable[..., None]] = pytest.mark.parametrize("check", cases)
    return decorator
