"""Which encoders ship with medssl: the files in `architectures`, none of which is imported to list them."""

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssl.encoders.encoder import Encoder

DEFAULT = "dynunet"
_PACKAGE = "medssl.encoders.architectures"


def shipped_encoders() -> tuple[str, ...]:
    """Their names, the default first."""
    modules = pkgutil.iter_modules([str(Path(__file__).with_name("architectures"))])
    names = {module.name.replace("_", "-") for module in modules}
    return (DEFAULT, *sorted(names - {DEFAULT}))


def shipped_class(name: str) -> "type[Encoder]":
    """The class of that name; its import loads MONAI (about 5 s)."""
    from medssl.encoders.encoder import Encoder

    module = importlib.import_module(f"{_PACKAGE}.{name.replace('-', '_')}")
    return next(
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Encoder) and member.__module__ == module.__name__
    )
