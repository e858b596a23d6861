"""The whole surface on which plugins attach.

Stands apart from everything heavy: importing it loads neither torch nor monai.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import pluggy

if TYPE_CHECKING:
    from medssl.encoders.encoder import Encoder
    from medssl.pretext.task import PretextTask

    Tasks: TypeAlias = Iterable[type[PretextTask]]
    Encoders: TypeAlias = Iterable[type[Encoder]]
else:
    Tasks = Encoders = Iterable[type]

hookspec = pluggy.HookspecMarker("medssl")
hookimpl = pluggy.HookimplMarker("medssl")


@hookspec
def medssl_pretext_tasks() -> Tasks:  # type: ignore[empty-body]
    """Return the pretext-task classes this plugin provides."""


@hookspec
def medssl_encoders() -> Encoders:  # type: ignore[empty-body]
    """Return the encoder classes this plugin provides.

    Each has a class attribute `name`, and a constructor that takes an `EncoderDescription` and builds the network
    from its options.
    """
