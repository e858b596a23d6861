"""The steps of the way as functions: archive to cohort to encoder to segmentation model to evidence.

Each does what the command of the same name does, the mirror in MLflow included, and `medssl` hands it out as
`medssl.ingest`, `medssl.pretrain` and so on. `predict` and `evaluate` need nothing added and come from
`medssl.downstream` as they are. Heavy packages are imported where they are used: `medssl.ingest` loads no torch.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from medssl.config import FinetuneConfig, PretrainConfig
    from medssl.downstream.comparison import Comparison
    from medssl.downstream.finetuning import FinetunedModel
    from medssl.encoders.encoder import Encoder
    from medssl.ingestion.report import IngestReport
    from medssl.ingestion.settings import IngestSettings
    from medssl.progress import Progress, StageProgress
    from medssl.runs.run import Run

PathLike: TypeAlias = str | os.PathLike[str]

log = logging.getLogger(__name__)


def ingest(
    sources: PathLike | Sequence[PathLike],
    cohort: PathLike,
    settings: "IngestSettings | Mapping[str, Any] | None" = None,
    *,
    progress: "StageProgress | None" = None,
) -> "IngestReport":
    """Bring every scan of an archive into a cohort, which is made or continued.

    Args:
        sources: Files and folders with DICOM series and NIfTI scans, or URLs of an object store or a DICOMweb server.
        cohort: Folder to make or continue.
        settings: Everything else, or a mapping of setting to value such as {"label_dir": "labels"}; what is left out
            keeps the value that the cohort has.
        progress: Shows what is done; silent by default.

    Returns:
        The number of scans, of labels, and of files and scans left out for each reason.

    Raises:
        ConfigError: A setting is unknown or out of bounds.
        UsageError: A path does not exist, the folder is not a cohort, or a setting contradicts the cohort's.
        DataError: The cohort cannot be written.
    """
    from medssl.config import check_options
    from medssl.ingestion import IngestSettings
    from medssl.ingestion import ingest as run_ingest

    if isinstance(settings, Mapping):
        settings = check_options(IngestSettings, settings, prefix="")
    listed = [sources] if isinstance(sources, str | os.PathLike) else sources
    return run_ingest([os.fspath(source) for source in listed], Path(cohort), settings=settings, progress=progress)


def pretrain(
    config: "PretrainConfig | Mapping[str, Any]",
    out: PathLike,
    *,
    resume: bool = False,
    progress: "Progress | None" = None,
) -> "Run":
    """Train an encoder on a cohort with one pretext task, without labels.

    Args:
        config: The settings, or a mapping of setting to value such as {"cohort": "cohort", "task": "masked-volume",
            "loop.steps": 2000}.
        out: Run folder to write, or with `resume` to continue.
        resume: Continue from the last checkpoint in `out`.
        progress: Shows the training; silent by default.

    Returns:
        The finished run, whose folder `finetune` takes as `init`.

    Raises:
        ConfigError: A setting is unknown, out of bounds, or does not fit the scans.
        PluginError: The task cannot be found or loaded.
        DataError: The cohort has no scans in the splits that are read.
        TrainingError: Loss or gradient are no longer finite.
    """
    from medssl.config import PretrainConfig, as_config
    from medssl.runs.run import Run
    from medssl.tracking.observe import mirror_runs
    from medssl.training.pretrain import pretrain as run_pretraining

    config = as_config(PretrainConfig, config)
    run_pretraining(config, Path(out), resume=resume, progress=progress, observe=mirror_runs(config.tracking))
    return Run.open(Path(out))


def finetune(
    config: "FinetuneConfig | Mapping[str, Any]",
    out: PathLike,
    *,
    resume: bool = False,
    progress: "Progress | None" = None,
) -> "FinetunedModel":
    """Train a segmentation network on few labelled scans and score it on the test split.

    Args:
        config: The settings, or a mapping of setting to value such as {"cohort": "cohort", "init": "runs/masked",
            "num_labelled": 10}; `init` is "scratch" or the folder of a pretraining.
        out: Run folder to write, or with `resume` to continue.
        resume: Continue from the last checkpoint in `out`.
        progress: Shows the training; silent by default.

    Returns:
        The model: its folder, which `predict` and `evaluate` take, and its scores.

    Raises:
        ConfigError: A setting is wrong, or asks for more labelled scans than there are.
        DataError: The cohort has no labelled scans.
        CheckpointError: The pretrained weights do not fit.
    """
    from medssl.config import FinetuneConfig, as_config
    from medssl.downstream import finetune as run_finetuning
    from medssl.tracking.observe import mirror_runs

    config = as_config(FinetuneConfig, config)
    observe = mirror_runs(config.tracking)
    return run_finetuning(config, Path(out), resume=resume, progress=progress, observe=observe)


def label_efficiency(
    config: "FinetuneConfig | Mapping[str, Any]",
    out: PathLike,
    *,
    inits: Mapping[str, PathLike],
    num_labelled: Sequence[int],
    seeds: int = 3,
    progress: "Callable[[str], Progress] | None" = None,
    warn: Callable[[str], None] = log.warning,
) -> "Comparison":
    """Fine-tune from scratch and from pretrained encoders with few labels, compare, and write the review page.

    The same call again completes what was interrupted.

    Args:
        config: Settings of the fine-tunings, or a mapping such as {"cohort": "cohort", "loop.steps": 500}.
        out: Folder for the runs, the table, the plot and review.html.
        inits: Name to the folder of a pretraining; scratch is always included.
        num_labelled: Numbers of labelled training scans.
        seeds: Repetitions with other labels and new weights.
        progress: Makes what shows one fine-tuning, from its title; silent by default.
        warn: Receives one sentence if the comparison cannot be sent to MLflow, which does not make it fail.

    Returns:
        Dice per initialisation and number of labels, and its gain over scratch, with intervals.

    Raises:
        ConfigError: `out` holds runs with other settings, of other scans or from other weights.
        UsageError: The pretrained networks differ.
    """
    from medssl.config import FinetuneConfig, as_config
    from medssl.downstream import label_efficiency as run_comparison
    from medssl.tracking.observe import mirror_runs, send_comparison
    from medssl.tracking.review import write_review

    if isinstance(config, Mapping):
        config = as_config(FinetuneConfig, {"init": "scratch", "num_labelled": 1, **config})
    comparison = run_comparison(
        config,
        Path(out),
        inits={name: os.fspath(folder) for name, folder in inits.items()},
        num_labelled=num_labelled,
        seeds=seeds,
        progress=progress,
        observe=mirror_runs(config.tracking, beside=Path(out)),
    )
    send_comparison(Path(out), config.tracking, warn=warn)
    write_review(Path(out))
    return comparison


def load_encoder(run: PathLike) -> "Encoder":
    """The encoder that a pretraining left, in evaluation mode, without the plugin that trained it.

    Args:
        run: Folder of the pretraining.

    Raises:
        CheckpointError: The folder holds no encoder, or its files are damaged.
    """
    from medssl.encoders.weights import load_encoder as load_encoder_and_decoder

    encoder, _ = load_encoder_and_decoder(Path(run))
    return encoder.eval()
