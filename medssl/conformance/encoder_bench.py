"""An encoder of a plugin, built as the host builds it, and images of the sizes that it takes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.errors import ConfigError, PluginError

# (D, H, W), all different, so that swapped axes show; the first that an encoder accepts is taken.
PATCHES = ((16, 24, 32), (32, 64, 96), (64, 96, 128))
CHANNELS = 2


class EncoderBench:
    """One encoder class with its options. preset: as in `encoder.preset`, for classes that know presets."""

    def __init__(
        self, cls: type[Encoder], *, options: Mapping[str, Any] | None = None, preset: str = "tiny", seed: int = 7
    ) -> None:
        self.cls, self.seed = cls, seed
        self.options = dict(options or {})
        self.preset = preset
        self._described: tuple[EncoderDescription, tuple[int, int, int]] | None = None

    def described(self) -> tuple[EncoderDescription, tuple[int, int, int]]:
        """The description that the host would make, for images of two channels, and the patch (D, H, W) it is for.

        Raises PluginError where no patch is accepted.
        """
        if self._described is None:  # an encoder is built to know, and every check asks
            self._described = self._find_description()
        return self._described

    def encoder(self, description: EncoderDescription | None = None, *, other: bool = False) -> Encoder:
        """A new encoder; the same weights each time, or with `other` those of another seed."""
        return self._built(description or self.described()[0], seed=self.seed + other)

    def image(self, *, batch: int = 2, seed: int = 0, patch: tuple[int, int, int] | None = None) -> Tensor:
        """(B, 2, D, H, W) noise."""
        draws = torch.Generator().manual_seed(seed)
        return torch.randn(batch, CHANNELS, *(patch or self.described()[1]), generator=draws)

    def _find_description(self) -> tuple[EncoderDescription, tuple[int, int, int]]:
        resolve = getattr(self.cls, "resolve", None)
        if resolve is None:
            description = self._describe(self.options)
            divisor = self._built(description).divisor
            d, h, w = (step * blocks for step, blocks in zip(divisor, (2, 3, 4), strict=True))
            return description, (d, h, w)
        refused = ""
        for patch in PATCHES:
            try:
                options, _ = resolve(self.preset, self.options, patch=patch, spacing_mm=None)
            except ConfigError as error:
                refused = str(error)
                continue
            checked = self.cls.Options.model_validate(options)  # type: ignore[attr-defined]
            return self._describe(checked.model_dump(mode="json")), patch
        raise PluginError(f"resolve accepts no patch of {', '.join(map(str, PATCHES))}: {refused}")

    def _describe(self, options: Mapping[str, Any]) -> EncoderDescription:
        return EncoderDescription(name=str(self.cls.name), in_channels=CHANNELS, options=dict(options))  # type: ignore[attr-defined]

    def _built(self, description: EncoderDescription, *, seed: int = 0) -> Encoder:
        torch.manual_seed(seed)
        cls: Any = self.cls
        encoder: Encoder = cls(description)
        return encoder
