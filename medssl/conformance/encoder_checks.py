"""Checks of an encoder. Each raises PluginError with a sentence that says what to change.

The host builds encoders from their descriptions, copies them for teachers, averages them, exports them, and lets
tasks put heads on any level.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from inspect import getdoc
from typing import Any

import torch
from torch import Tensor

from medssl.conformance.kit import Outcome, outcome
from medssl.conformance.workbench import EncoderBench
from medssl.encoders.encoder import Decoder, Encoder, EncoderDescription
from medssl.errors import PluginError
from medssl.plugins.check import ENCODER_BASE, check_class
from medssl.pretext.sparse import DropsTokens
from medssl.shapes import Shape3D

EncoderCheck = Callable[[EncoderBench], None]


def describes_itself(bench: EncoderBench) -> None:
    """A name for the command line, a docstring, and a description that builds the same network again."""
    check_class(bench.cls, base=ENCODER_BASE, origin=bench.cls.__module__)
    if not bench.cls.__doc__ or not getdoc(bench.cls):
        raise PluginError("the class has no docstring. Say in one line what network it is.")
    description, _ = bench.described()
    stored = bench.encoder().description
    try:
        again = EncoderDescription.model_validate(json.loads(json.dumps(stored.model_dump())))
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"description does not survive JSON ({error}). Keep plain numbers and lists in it."
        ) from error
    if (again.name, again.in_channels) != (description.name, description.in_channels):
        raise PluginError(
            f"the encoder stores the description {stored!r}, but was built from {description!r}. Store it."
        )
    if _shapes(bench.encoder(again)) != _shapes(bench.encoder()):
        raise PluginError("built again from its own description, it has other parameters. Keep every option in it.")


def pyramid_matches_its_description(bench: EncoderBench) -> None:
    """One finite map per level, finest first, with the channels and strides that it states, for unequal edges."""
    encoder, (_, patch) = bench.encoder(), bench.described()
    if not len(encoder.channels) == len(encoder.strides) > 0:
        raise PluginError(f"{len(encoder.channels)} channels and {len(encoder.strides)} strides. Give one per level.")
    for fine, coarse in zip(encoder.strides, encoder.strides[1:], strict=False):
        if any(a > b for a, b in zip(fine, coarse, strict=True)):
            raise PluginError(f"stride {coarse} comes after {fine}. List levels from the finest to the coarsest.")
    d, h, w = patch
    for batch, edges in ((2, patch), (3, (d, w, h)), (2, (2 * d, h, w))):
        edges = _rounded(edges, encoder.divisor)
        _check_pyramid(encoder(bench.image(batch=batch, patch=edges)), encoder, batch, edges)


def every_parameter_learns(bench: EncoderBench) -> None:
    """Every parameter that asks for a gradient gets a finite one from the pyramid."""
    encoder = bench.encoder()
    torch.stack([level.square().mean() for level in encoder(bench.image())]).sum().backward()  # type: ignore[no-untyped-call]
    wanting = {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad}
    unused = [name for name, gradient in wanting.items() if gradient is None]
    if unused:
        raise PluginError(
            f"{len(unused)} parameters get no gradient ({', '.join(unused[:3])}, ...): several processes would wait "
            "for them forever. Put what a decoder needs into make_decoder, or set requires_grad to False."
        )
    broken = [name for name, gradient in wanting.items() if gradient is not None and not gradient.isfinite().all()]
    if broken:
        raise PluginError(f"the gradient of {broken[0]} is not finite. Guard divisions, roots and logarithms.")


def samples_are_independent(bench: EncoderBench) -> None:
    """The features of a volume do not depend on the other volumes of the batch."""
    encoder = bench.encoder().train()
    image = bench.image()
    changed = torch.cat([image[:1], bench.image(seed=1)[1:] * 3 + 1])
    pyramids = []
    for batch in (image, changed):
        torch.manual_seed(bench.seed)  # dropout, where there is any, drops the same
        pyramids.append(bench.encoder().train()(batch))
    if any(not torch.allclose(a[0], b[0], rtol=1e-4, atol=1e-4) for a, b in zip(*pyramids, strict=True)):
        kinds = {type(m).__name__ for m in encoder.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)}
        raise PluginError(
            f"a volume's features depend on the rest of the batch{' (' + ', '.join(kinds) + ')' if kinds else ''}. Use "
            "instance, group or layer normalisation: batches are 2 to 8 volumes."
        )


def global_state_is_unchanged(bench: EncoderBench) -> None:
    """Same seed, same weights; building and running it leaves torch's settings and the image as they were."""
    before = _settings()
    first, second = bench.encoder(), bench.encoder()
    if not _same_bits(first.state_dict(), second.state_dict()):
        raise PluginError("two encoders from the same seed differ. Draw weights from torch's generator alone.")
    image = bench.image()
    original = image.clone()
    first.eval()
    with torch.no_grad():
        once, twice = first(image), first(image)
    if not torch.equal(image, original):
        raise PluginError("forward writes to the image. Work on a copy.")
    if any(not torch.equal(a, b) for a, b in zip(once, twice, strict=True)):
        raise PluginError("in evaluation two passes over one image differ. Switch randomness off in eval().")
    if _settings() != before:
        raise PluginError(f"torch's settings changed from {before} to {_settings()}. Leave global state alone.")


def all_precisions_work(bench: EncoderBench) -> None:
    """In float64 and under bfloat16 it gives the same features up to rounding."""
    encoder, image = bench.encoder().eval(), bench.image()
    with torch.no_grad():
        plain = encoder(image)
        try:
            double = bench.encoder().eval().double()(image.double())
        except RuntimeError as error:
            raise PluginError(f"in float64 it fails: {error} Create tensors like the image (dtype, device).") from error
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = encoder(image)
    for level, (exact, wide, low) in enumerate(zip(plain, double, rough, strict=True)):
        if wide.dtype != torch.float64 or not torch.allclose(wide.float(), exact, rtol=1e-3, atol=1e-3):
            raise PluginError(f"level {level} differs in float64. Keep the image's precision throughout.")
        if not (low.float() - exact).abs().mean() <= 0.2 * exact.abs().mean() + 1e-3:
            raise PluginError(f"level {level} differs under bfloat16. Compute norms and exponentials in float32.")


def state_dict_restores_the_encoder(bench: EncoderBench) -> None:
    """Loaded into a new encoder its state gives the same bits; a copy is independent; building needs no memory."""
    encoder, image = bench.encoder(), bench.image()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.01 * torch.randn_like(p))
        expected = encoder.eval()(image)
        copied = deepcopy(encoder)
        again = bench.encoder(new_seed=True)
        again.load_state_dict(encoder.state_dict())
        for p in encoder.parameters():
            p.zero_()
        for features, how in ((again.eval()(image), "loaded into a new encoder"), (copied(image), "copied")):
            if any(not torch.equal(a, b) for a, b in zip(features, expected, strict=True)):
                raise PluginError(f"{how}, it gives other features. Keep all state in parameters and buffers.")
    description, _ = bench.described()
    try:
        with torch.device("meta"):
            shapes = _shapes(bench.encoder(description))
    except (RuntimeError, NotImplementedError) as error:
        raise PluginError(
            f"on torch's meta device, where weights are checked before they are read, it cannot be built: {error}"
        ) from error
    if shapes != _shapes(again):
        raise PluginError("on torch's meta device it has other parameters. Let options alone decide what is built.")


def decoder_fits(bench: EncoderBench) -> None:
    """`make_decoder` gives a new decoder each time, which turns the pyramid into a map at the image's resolution."""
    encoder, image = bench.encoder(), bench.image()
    decoder, second = encoder.make_decoder(3), encoder.make_decoder(3)
    if not isinstance(decoder, Decoder) or decoder.out_channels != 3:
        raise PluginError(f"make_decoder returns {type(decoder).__name__}. Return a medssl.Decoder with out_channels.")
    if {id(p) for p in decoder.parameters()} & {id(p) for p in (*second.parameters(), *encoder.parameters())}:
        raise PluginError("a decoder shares parameters with another, or with the encoder. Build them anew each time.")
    out = decoder(encoder(image), image)
    if tuple(out.shape) != (2, 3, *image.shape[2:]):
        raise PluginError(f"the decoder gives {tuple(out.shape)} for an image {tuple(image.shape)} and 3 classes.")
    out.square().mean().backward()
    unused = [name for name, p in decoder.named_parameters() if p.requires_grad and p.grad is None]
    if unused:
        raise PluginError(f"{len(unused)} parameters of the decoder get no gradient ({unused[0]}, ...). Remove them.")


def hidden_tokens_are_ignored(bench: EncoderBench) -> None:
    """Where it offers `encode_visible`, nothing depends on hidden voxels, and with nothing hidden it is `forward`."""
    encoder, image = bench.encoder().eval(), bench.image()
    if not isinstance(encoder, DropsTokens):
        return
    hidden = torch.zeros_like(image[:, :1], dtype=torch.bool)
    with torch.no_grad():
        plain, all_visible = encoder(image), encoder.encode_visible(image, hidden)
        hidden[:, :, : encoder.divisor[0]] = True
        masked = encoder.encode_visible(image, hidden)
        changed = encoder.encode_visible(torch.where(hidden, 7.0, image), hidden)
    if any(not torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(plain, all_visible, strict=True)):
        raise PluginError("with nothing hidden encode_visible differs from forward. Keep every token in its place.")
    visible = slice(1, None)  # the first cells along D were hidden
    if any(not torch.equal(a[:, :, visible], b[:, :, visible]) for a, b in zip(masked, changed, strict=True)):
        raise PluginError("features of visible cells depend on hidden voxels. Leave hidden tokens out of every block.")


ENCODER_CHECKS: tuple[EncoderCheck, ...] = (
    describes_itself,
    pyramid_matches_its_description,
    every_parameter_learns,
    samples_are_independent,
    global_state_is_unchanged,
    all_precisions_work,
    state_dict_restores_the_encoder,
    decoder_fits,
    hidden_tokens_are_ignored,
)


def _check_pyramid(pyramid: list[Tensor], encoder: Encoder, batch: int, edges: Shape3D) -> None:
    if not isinstance(pyramid, list) or not all(isinstance(level, Tensor) for level in pyramid):
        raise PluginError(
            f"forward returns {type(pyramid).__name__}. Return a list of tensors, the finest level first."
        )
    stated = [
        (batch, count, *(edge // step for edge, step in zip(edges, stride, strict=True)))
        for count, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    shapes = [tuple(level.shape) for level in pyramid]
    if shapes != stated:
        raise PluginError(
            f"an image of {edges} voxels (D, H, W) gives {shapes}, but channels and strides state {stated}. State what "
            "forward returns; strides are relative to the image."
        )
    for level, features in enumerate(pyramid):
        if not features.isfinite().all():
            raise PluginError(f"level {level} is not finite. Guard divisions, roots and logarithms.")


def _rounded(edges: Shape3D, divisor: Shape3D) -> Shape3D:
    d, h, w = (max(2 * step, edge // step * step) for edge, step in zip(edges, divisor, strict=True))
    return d, h, w


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def _settings() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
    }


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
