"""The two hooks that plugins implement. Importing this module loads neither torch nor MONAI."""

from collections.abc import Iterable
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("medssl")
hookimpl = pluggy.HookimplMarker("medssl")


@hookspec
def medssl_pretext_tasks() -> Iterable[type[Any]]:  # type: ignore[empty-body]
    """Return the pretext tasks that this plugin provides: subclasses of `medssl.PretextTask`."""


@hookspec
def medssl_encoders() -> Iterable[type[Any]]:  # type: ignore[empty-body]
    """Return the encoders that this plugin provides: subclasses of `medssl.Encoder`.

    Each has a class attribute `name`, and a constructor that takes an `EncoderDescription` and builds the network
    from its options.
    """
