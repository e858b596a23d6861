"""Fine-tuning: a segmentation network from few labelled scans, from scratch or from a pretrained encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medssl.cohort.cohort import Cohort
from medssl.config import FinetuneConfig, as_config
from medssl.downstream.comparison import SCRATCH
from medssl.downstream.dice import Evaluation
from medssl.downstream.evaluation import evaluate_network
from medssl.downstream.labelled import class_names, gaps_in_test, labelled_scans, training_scans
from medssl.downstream.segmentation import Segmentation, segmentation_crops
from medssl.encoders.build import build_encoder, check_patch, describe
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.transfer import TransferReport, transfer
from medssl.encoders.weights import load_encoder, read_description, save_network, weights_digest
from medssl.loading.plan import BatchPlan
from medssl.progress import Progress, Silent
from medssl.runs.observer import Observer, no_observer
from medssl.runs.run import Run
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume
from medssl.training.fabric import start_fabric
from medssl.training.loop import train
from medssl.training.opening import open_run
from medssl.training.preparation import choose_patch
from medssl.training.pretrain import modalities_of, recorded
from medssl.training.trainee import Training


@dataclass(frozen=True)
class FinetunedModel:
    """What a fine-tuning leaves.

    Attributes:
        folder: The run, with model.safetensors; `predict` and `evaluate` take it.
        evaluation: Scores on the test split; None where that has no labelled scan, and on ranks above 0.
    """

    folder: Path
    evaluation: Evaluation | None

    @property
    def dice(self) -> float | None:
        """Mean Dice on the test split, in [0, 1]."""
        return self.evaluation.dice if self.evaluation else None


def finetune(
    config: FinetuneConfig | Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    observe: Observer = no_observer,
) -> FinetunedModel:
    """Train a segmentation network on few labelled scans and score it on the test split.

    Args:
        config: The settings, or a mapping of setting to value such as {"cohort": "cohort", "init": "runs/masked",
            "num_labelled": 10, "loop.steps": 500}.
        out: Run folder to write: model.safetensors, evaluation.json, metrics and settings.
        resume: Continue the run in `out`.
        progress: Shows the training; silent by default.
        observe: Context manager around the training, such as the MLflow mirror.

    Raises:
        ConfigError: A setting is wrong, or asks for more labelled scans than there are.
        DataError: The cohort has no labelled scans, or labels with gaps.
        CheckpointError: The pretrained weights do not fit.
    """
    config, out, progress = as_config(FinetuneConfig, config), Path(out), progress or Silent()
    cohort = Cohort.open(config.cohort)
    names = class_names(cohort)
    scans = training_scans(cohort, num_labelled=config.num_labelled, seed=config.loop.seed)
    patch = choose_patch(scans, config.patch)
    network, reports = build_network(config, scans=scans, patch=patch, classes=len(names) + 1)
    metadata = {
        "init": "scratch" if config.init == SCRATCH else "pretrained",
        "init_digest": None if config.init == SCRATCH else weights_digest(Path(config.init)),
        "encoder": network.encoder.description.model_dump(mode="json"),
        "patch": list(patch),
        "labelled_scans": [scan.scan_id for scan in scans],
        "cohort_digest": cohort.digest,
        "transfer": [report.as_dict() for report in reports],
    }
    fabric = start_fabric(config.loop)
    run = open_run(
        out, kind="finetune", config=config, metadata=metadata, resume=resume, fabric=fabric, progress=progress
    )
    with recorded(run, observe=observe, fabric=fabric):
        for gap in gaps_in_test(cohort):
            progress.say(gap)
        for report in reports if fabric.is_global_zero else ():
            run.note(str(report))
        training = segmentation_training(config, network, scans=scans, patch=patch, classes=len(names) + 1)
        train(training, fabric=fabric, run=run, progress=progress, resume=resume)
        if not fabric.is_global_zero:
            return FinetunedModel(out, None)
        for_prediction = {
            "label_names": names,
            "patch": list(patch),
            "overlap": config.overlap,
            "store_policy": dict(cohort.policy),
            "modalities": modalities_of(scans),
        }
        save_network(out, network, metadata=metadata | for_prediction)
        tested = labelled_scans(cohort, split="test")
        evaluation = record_evaluation(
            network, tested, run=run, config=config, names=names, patch=patch, device=fabric.device
        )
        return FinetunedModel(out, evaluation)


def segmentation_training(
    config: FinetuneConfig, network: SegmentationNetwork, *, scans: Sequence[StoredVolume], patch: Shape3D, classes: int
) -> Training:
    """Batches, loss and learning rates of a fine-tuning. classes: background included."""
    plan = BatchPlan(
        scans,
        segmentation_crops(patch, strength=config.augment),
        batch_size=config.loop.batch_size,
        seed=config.loop.seed,
        foreground=config.foreground,
    )
    return Training(
        module=Segmentation(network, classes=classes, strength=config.augment),
        plan=plan,
        optim=config.optim,
        loop=config.loop,
        with_labels=True,
        scaled_modules=[(network.encoder, config.encoder_lr_scale)],
    )


def build_network(
    config: FinetuneConfig, *, scans: Sequence[StoredVolume], patch: Shape3D, classes: int
) -> tuple[SegmentationNetwork, list[TransferReport]]:
    """The network to train, and a report on every transferred tensor.

    A pretraining in `config.init` decides the architecture; from scratch, `config.encoder` does. Random weights depend
    on the seed alone, so that tensors that are not transferred are equal from scratch and from a pretraining.
    """
    if config.init == SCRATCH:
        chosen, spacing_mm = config.encoder, scans[0].spacing_mm
        description = describe(
            chosen.name, preset=chosen.preset, options=chosen.options, patch=patch, spacing_mm=spacing_mm
        )
    else:
        description = read_description(Path(config.init))
    torch.manual_seed(config.loop.seed)
    encoder = build_encoder(description)
    check_patch(encoder, patch)
    network = SegmentationNetwork(encoder, encoder.make_decoder(classes))
    if config.init == SCRATCH:
        return network, []
    pretrained, decoder = load_encoder(Path(config.init))
    reports = [transfer(pretrained.state_dict(), network.encoder, what="encoder")]
    if decoder is not None and config.transfer == "all":
        reports.append(transfer(decoder.state_dict(), network.decoder, what="decoder"))
    return network, reports


def record_evaluation(
    network: SegmentationNetwork,
    scans: Sequence[StoredVolume],
    *,
    run: Run,
    config: FinetuneConfig,
    names: dict[int, str],
    patch: Shape3D,
    device: torch.device,
) -> Evaluation | None:
    """Score the network on the test scans and write evaluation.json and the metrics `test/...`; None without scans."""
    if not scans:
        run.note("The split 'test' has no labelled scan, so nothing was evaluated.")
        return None
    # A heartbeat with each batch of windows: scoring large scans may take longer than the silence after which a run
    # counts as killed.
    beating = network.register_forward_hook(lambda *_: run.beat())
    evaluation = evaluate_network(network, scans, names=names, patch=patch, overlap=config.overlap, device=device)
    beating.remove()
    evaluation.write(run.folder)
    for sentence in evaluation.sentences():
        run.note(sentence)
    scores = {"dice": evaluation.dice} | {f"dice_{names[label]}": dice for label, dice in evaluation.class_dice.items()}
    scored = {f"test/{key}".replace(" ", "_"): dice for key, dice in scores.items() if dice is not None}
    run.log(config.loop.steps, scored)
    return evaluation
