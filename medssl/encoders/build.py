"""From a name and options to a description, and from a description to an encoder."""

import logging
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from medssl.config.problems import check_options
from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.encoders.shipped import shipped_class, shipped_encoders
from medssl.encoders.sizing import PRESETS, Preset, device_memory_bytes, preset_for_device
from medssl.errors import ConfigError, PluginError
from medssl.shapes import Shape3D, Spacing3D
from medssl.suggest import did_you_mean

AUTO = "auto"
MAX_CHANNELS = 1024
PREFIX = "encoder.options."

log = logging.getLogger(__name__)


def encoder_names() -> tuple[str, ...]:
    """Names that `--encoder` takes, the default first, those of plugins last."""
    from medssl.plugins import list_encoders

    of_plugins = {entry.name for entry in list_encoders() if entry.status != "off"}
    return (*shipped_encoders(), *sorted(of_plugins - set(shipped_encoders())))


def describe(
    name: str,
    *,
    preset: str = AUTO,
    options: Mapping[str, Any] | None = None,
    in_channels: int = 1,
    patch: Shape3D,
    spacing_mm: Spacing3D | None = None,
    explain: Callable[[str], object] = log.info,
) -> EncoderDescription:
    """The description of an encoder, with every "auto" resolved.

    Args:
        name: As in `--encoder`.
        preset: tiny, small, base, large or auto (by the memory of the device).
        options: Of the encoder; each may be "auto".
        in_channels: Of the images.
        patch: Edges D, H, W of what the network sees, in voxels.
        spacing_mm: Of the scans, along D, H, W; None for cubic voxels.
        explain: Takes a sentence for each value that was chosen.

    Raises:
        ConfigError: Name, preset or options are unknown, or do not fit the patch.
    """
    encoder, size = encoder_class(name), _preset(preset, explain)
    fixed = {key: value for key, value in (options or {}).items() if value != AUTO}
    if not 1 <= in_channels <= MAX_CHANNELS:
        raise ConfigError(f"in_channels of encoder '{name}' is {in_channels}. It lies between 1 and {MAX_CHANNELS}.")
    if not hasattr(encoder, "resolve"):  # of a plugin that knows no presets: its options are taken as they are
        return EncoderDescription(name=name, in_channels=in_channels, options=fixed, spacing_mm=spacing_mm)
    checked = _checked(encoder.Options, fixed)
    resolved, reasons = encoder.resolve(size, checked, patch=patch, spacing_mm=spacing_mm)
    for reason in reasons:
        explain(reason)
    complete = check_options(encoder.Options, resolved, prefix=PREFIX).model_dump(mode="json")
    return EncoderDescription(name=name, in_channels=in_channels, options=complete, spacing_mm=spacing_mm)


def build_encoder(description: EncoderDescription) -> Encoder:
    """The encoder that a description names, freshly initialised from torch's random state. Raises ConfigError."""
    kind = encoder_class(description.name)
    if hasattr(kind, "Options"):
        check_options(kind.Options, description.options, prefix=PREFIX)
    try:
        encoder: Encoder = kind(description)
    except ValidationError as wrong:
        raise ConfigError(
            f"options of encoder '{description.name}' do not fit: {wrong}. See its documentation."
        ) from wrong
    return encoder


def check_patch(encoder: Encoder, patch: Shape3D) -> None:
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


def _checked(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, each checked by itself: sizes that depend on the others are not known yet."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        optional = copy(field)
        optional.default = None
        fields[name] = (field.annotation, optional)
    partial: type[BaseModel] = create_model("Partial", __config__=ConfigDict(extra="forbid"), **fields)
    checked = check_options(partial, options, prefix=PREFIX)
    return {key: getattr(checked, key) for key in options}


def encoder_class(name: str) -> Any:
    """The class behind a name, shipped or from a plugin. Raises ConfigError, and PluginError where a plugin fails."""
    if name in shipped_encoders():
        return shipped_class(name)
    from medssl.plugins import list_encoders, load_encoder

    try:
        return load_encoder(name, known=shipped_encoders()).cls
    except PluginError as wrong:
        if any(entry.name == name for entry in list_encoders()):
            raise  # there is such a plugin, and it fails
        raise _unknown("encoder", name, encoder_names()) from wrong


def _preset(setting: str, explain: Callable[[str], object]) -> Preset:
    if setting == AUTO:
        chosen, reason = preset_for_device(device_memory_bytes())
        explain(reason)
        return chosen
    for preset in PRESETS:
        if setting == preset:
            return preset
    raise _unknown("encoder preset", setting, (*PRESETS, AUTO))


def _unknown(what: str, word: str, choices: Iterable[str]) -> ConfigError:
    hint = did_you_mean(word, choices)
    return ConfigError(f"there is no {what} '{word}'{hint} Choose from {', '.join(choices)}.")
