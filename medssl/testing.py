"""The conformance kit for authors of pretext tasks.

    from medssl.testing import parametrize_with_checks

    @parametrize_with_checks([MaskedCubes])
    def test_masked_cubes(check):
        check()

gives one pytest id per check. `medssl plugins check` runs the same checks from the command line.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medssl.conformance.kit import Outcome, checks_of, run_checks
from medssl.conformance.tiny_encoder import TinyEncoder
from medssl.conformance.workbench import Workbench
from medssl.pretext.task import PretextTask

__all__ = ["Outcome", "TinyEncoder", "Workbench", "parametrize_with_checks", "run_checks"]


def parametrize_with_checks(
    tasks: Sequence[type[PretextTask]], *, options: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator for a test with one argument, `check`: a pytest id per task and check.

    options: settings of the task that differ from its defaults.
    """
    import pytest

    cases = [
        pytest.param(check, id=f"{cls.name}: {name.replace('_', ' ')}")
        for cls in tasks
        for name, check in checks_of(cls, options=options).items()
    ]
    decorator: Callable[[Callable[..., None]], Callable[..., None]] = pytest.mark.parametrize("check", cases)
    return decorator
