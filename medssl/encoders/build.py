"""From a name and a few wishes to a description, and from a description to an encoder."""

import difflib
import importlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.encoders.sizing import PRESETS, Preset, device_memory_bytes, preset_for_device
from medssl.encoders.topology import Triple
from medssl.errors import ConfigError

# Modules are imported when an encoder is built: each loads MONAI (about 5 s).
ENCODERS: Mapping[str, tuple[str, str]] = {
    "dynunet": ("medssl.encoders.dynunet", "DynUNetEncoder"),
    "segresnet": ("medssl.encoders.segresnet", "SegResNetEncoder"),
    "swin-unetr": ("medssl.encoders.swin_unetr", "SwinUNETREncoder"),
}

AUTO = "auto"
MOST_CHANNELS = 1024

log = logging.getLogger(__name__)


def encoder_names() -> tuple[str, ...]:
    """Names that `--encoder` takes, the default first."""
    return tuple(ENCODERS)


def describe(
    name: str,
    *,
    preset: str = AUTO,
    options: Mapping[str, Any] | None = None,
    in_channels: int = 1,
    patch: Triple,
    spacing_mm: tuple[float, float, float] | None = None,
) -> EncoderDescription:
    """Description with every "auto" resolved; the reasons go to the log (`explain` returns them).

    preset: tiny, small, base, large or auto (by the memory of the device). options: of the encoder, each may be "auto".
    patch: (D, H, W) voxels; spacing_mm: of D, H, W, None for cubic voxels. Raises ConfigError.
    """
    description, reasons = explain(
        name, preset=preset, options=options, in_channels=in_channels, patch=patch, spacing_mm=spacing_mm
    )
    for reason in reasons:
        log.info("encoder %s: %s", name, reason)
    return description


def explain(
    name: str,
    *,
    preset: str = AUTO,
    options: Mapping[str, Any] | None = None,
    in_channels: int = 1,
    patch: Triple,
    spacing_mm: tuple[float, float, float] | None = None,
) -> tuple[EncoderDescription, list[str]]:
    """As `describe`, with the reason for each value that was chosen."""
    kind = _kind(name)
    size, reasons = _preset(preset)
    given = {key: value for key, value in (options or {}).items() if value != AUTO}
    _check_keys(name, kind, given)
    try:
        resolved, more = kind.resolve(size, given, patch=patch, spacing_mm=spacing_mm)
    except (
        TypeError,
        AttributeError,
    ) as wrong:  # a given option of the wrong type, met before the model below could name it
        raise ConfigError(
            f"options of encoder '{name}' cannot be read: {wrong}. See docs/encoders.md for their form."
        ) from wrong
    checked = validate_options(name, resolved)
    if not 1 <= in_channels <= MOST_CHANNELS:
        raise ConfigError(f"in_channels of encoder '{name}' is {in_channels}. It lies between 1 and {MOST_CHANNELS}.")
    description = EncoderDescription(name=name, in_channels=in_channels, options=checked.model_dump(mode="json"))
    return description, reasons + more


def build_encoder(description: EncoderDescription) -> Encoder:
    """The encoder that a description names, freshly initialised from torch's random state. Raises ConfigError."""
    kind = _kind(description.name)
    _check_keys(description.name, kind, description.options)
    encoder: Encoder = kind(validate_options(description.name, description.options), description.in_channels)
    return encoder


def check_patch(encoder: Encoder, patch: Triple) -> None:
    """Raise ConfigError where a patch (D, H, W) does not fit an encoder that is already built."""
    if any(edge % step for edge, step in zip(patch, encoder.divisor, strict=True)):
        near = [max(step, round(edge / step) * step) for edge, step in zip(patch, encoder.divisor, strict=True)]
        raise ConfigError(
            f"a patch of {list(patch)} voxels (D, H, W) does not fit encoder '{encoder.description.name}', "
            f"which needs multiples of {list(encoder.divisor)}. The nearest that fits is {near}."
        )
    if all(edge == step for edge, step in zip(patch, encoder.divisor, strict=True)):
        raise ConfigError(
            f"a patch of {list(patch)} voxels (D, H, W) leaves one voxel at the coarsest level of encoder "
            f"'{encoder.description.name}', which cannot be normalised. Double at least one edge."
        )


def validate_options(name: str, options: Mapping[str, Any]) -> Any:
    """The encoder's own options model, filled. Raises ConfigError with every problem in one sentence each."""
    try:
        return _kind(name).Options.model_validate(dict(options))
    except ValidationError as wrong:
        problems = "; ".join(_sentence(error) for error in wrong.errors())
        raise ConfigError(f"options of encoder '{name}': {problems}. See docs/encoders.md for their bounds.") from wrong


def _sentence(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {message}, got {error['input']!r}" if place else message


def _kind(name: str) -> Any:
    if name not in ENCODERS:
        raise ConfigError(
            f"there is no encoder '{name}'{_did_you_mean(name, ENCODERS)} Choose from {', '.join(ENCODERS)}."
        )
    module, attribute = ENCODERS[name]
    return getattr(importlib.import_module(module), attribute)


def _preset(preset: str) -> tuple[Preset, list[str]]:
    if preset == AUTO:
        chosen, reason = preset_for_device(device_memory_bytes())
        return chosen, [reason]
    for known in PRESETS:
        if preset == known:
            return known, []
    choices = (*PRESETS, AUTO)
    raise ConfigError(
        f"there is no encoder preset '{preset}'{_did_you_mean(preset, choices)} Choose from {', '.join(choices)}."
    )


def _check_keys(name: str, kind: Any, given: Mapping[str, Any]) -> None:
    known = kind.Options.model_fields
    for key in given:
        if key not in known:
            raise ConfigError(
                f"encoder '{name}' has no option '{key}'{_did_you_mean(key, known)} It has {', '.join(known)}."
            )


def _did_you_mean(word: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else "."
