"""From a run folder to files that others can use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import ConfigError, UsageError
from medssl.exchange.trained_model import TrainedModel, open_trained_model
from medssl.files import atomic_folder
from medssl.suggest import did_you_mean

FORMATS = ("safetensors", "monai-bundle", "nnunet")


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: Where it lies.
        files: Relative to `folder`.
        notes: What the user should know, in sentences.
    """

    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def export(run: Path, out: Path, *, form: str) -> Export:
    """Write the weights of a run into a new folder, which appears when all is written and proven, else not at all.

    Args:
        run: The run folder, or a folder that was exported as safetensors.
        out: Where the files go: missing, or an empty folder.
        form: One of `FORMATS`.

    Raises:
        UsageError: `out` is taken, or `run` is not a folder.
        ConfigError: The form is unknown, or cannot hold this encoder.
        CheckpointError: The weights cannot be read.
    """
    if form not in FORMATS:
        hint = did_you_mean(form, FORMATS)
        raise ConfigError(f"there is no export format '{form}'{hint} Choose from {', '.join(FORMATS)}.")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty. Choose another folder with --out.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file. Choose a folder with --out.")
    model = open_trained_model(run)
    with atomic_folder(out) as draft:
        notes = _writer(form)(model, draft)
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return Export(out, tuple(files), tuple(notes))


def _writer(form: str) -> Callable[[TrainedModel, Path], list[str]]:
    from medssl.exchange.bundle import write_bundle
    from medssl.exchange.nnunet import write_nnunet
    from medssl.exchange.plain import write_plain

    return dict(zip(FORMATS, (write_plain, write_bundle, write_nnunet), strict=True))[form]
