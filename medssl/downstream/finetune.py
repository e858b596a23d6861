"""Fine-tuning: a segmentation network from few labelled scans, from scratch or from a pretrained encoder."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from medssl.cohort.cohort import Cohort
from medssl.config import FinetuneConfig
from medssl.downstream.evaluate import Evaluation, evaluate
from medssl.downstream.labelled import class_labels, gaps_in_test, test_scans, training_scans
from medssl.downstream.segmentation import Segmentation, segmentation_crops
from medssl.encoders.build import build_encoder, check_patch, describe
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.transfer import TransferReport, transfer
from medssl.encoders.weights import load_encoder, read_description, save_network, weights_digest
from medssl.files import write_bytes
from medssl.loading.plan import BatchPlan
from medssl.progress import Progress, Silent
from medssl.runs.run import Run
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume
from medssl.training.fabric import start_fabric
from medssl.training.loop import train
from medssl.training.opening import open_run
from medssl.training.preparation import choose_patch
from medssl.training.pretrain import Observer, modalities_of, no_observer, recorded
from medssl.training.trainee import Training

SCRATCH = "scratch"


def finetune(
    config: FinetuneConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    observe: Observer = no_observer,
) -> Evaluation | None:
    """Train a segmentation network into the run folder `out` and score it on the test split; None when that has no
    labels.

    The folder then holds model.safetensors and evaluation.json. Raises DataError when labels are missing,
    CheckpointError when the pretrained weights do not fit, and what `train` raises.
    """
    cohort = Cohort.open(config.cohort)
    labels = class_labels(cohort)
    scans = training_scans(cohort, num_labelled=config.num_labelled, seed=config.loop.seed)
    patch = choose_patch(scans, config.patch)
    network, reports = build_network(config, scans=scans, patch=patch, classes=len(labels) + 1)
    module = Segmentation(network, classes=len(labels) + 1, strength=config.augment)
    plan = BatchPlan(
        scans,
        segmentation_crops(patch, strength=config.augment),
        batch_size=config.loop.batch_size,
        seed=config.loop.seed,
        foreground=config.foreground,
    )
    facts = {
        "init": "scratch" if config.init == SCRATCH else "pretrained",
        "init_digest": None if config.init == SCRATCH else weights_digest(Path(config.init)),
        "encoder": network.encoder.description.model_dump(mode="json"),
        "patch": list(patch),
        "labelled_scans": [scan.scan_id for scan in scans],
        "cohort_digest": cohort.digest,
        "transfer": [report.as_dict() for report in reports],
    }
    progress = progress or Silent()
    fabric = start_fabric(config.loop)
    progress = progress or Silent()
    run = open_run(out, kind="finetune", config=config, metadata=facts, resume=resume, fabric=fabric, progress=progress)
    with recorded(run, observe=observe, fabric=fabric):
        for gap in gaps_in_test(cohort):
            progress.say(gap)
        for report in reports if fabric.is_global_zero else ():
            run.note(str(report))
        training = Training(
            module=module,
            plan=plan,
            optim=config.optim,
            loop=config.loop,
            with_labels=True,
            scaled_modules=[(network.encoder, config.encoder_lr_scale)],
        )
        train(training, fabric=fabric, run=run, progress=progress, resume=resume)
        if not fabric.is_global_zero:
            return None
        names = {label: cohort.label_names.get(label, str(label)) for label in labels}
        prediction = {
            "label_names": names,
            "patch": list(patch),
            "overlap": config.overlap,
            "store_policy": dict(cohort.policy),
            "modalities": modalities_of(scans),
        }
        save_network(out, network, metadata=facts | prediction)
        return score(
            network,
            test_scans(cohort),
            run=run,
            config=config,
            names=names,
            patch=patch,
            device=fabric.device,
        )


def build_network(
    config: FinetuneConfig, *, scans: Sequence[StoredVolume], patch: Shape3D, classes: int
) -> tuple[SegmentationNetwork, list[TransferReport]]:
    """The network to train, with pretrained weights put in and reported tensor by tensor.

    A run to start from decides the architecture; from scratch, `config.encoder` does. The initialisation depends on
    the seed alone, so that what is not transferred starts alike in both.
    """
    if config.init == SCRATCH:
        description = describe(
            config.encoder.name,
            preset=config.encoder.preset,
            options=config.encoder.options,
            in_channels=1,
            patch=patch,
            spacing_mm=scans[0].spacing_mm,
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


def score(
    network: SegmentationNetwork,
    scans: Sequence[StoredVolume],
    *,
    run: Run,
    config: FinetuneConfig,
    names: dict[int, str],
    patch: Shape3D,
    device: torch.device,
) -> Evaluation | None:
    """Evaluate on the test scans and write evaluation.json and the metrics `test/...`."""
    if not scans:
        run.note("The split 'test' has no labelled scan, so nothing was evaluated.")
        return None
    # With each batch of windows: scoring large scans may take longer than a living run may be silent.
    beating = network.register_forward_hook(lambda *_: run.beat())
    evaluation = evaluate(network, scans, names=names, patch=patch, overlap=config.overlap, device=device)
    beating.remove()
    content = json.dumps(evaluation.as_dict(), indent=1, allow_nan=False)
    write_bytes(run.folder / "evaluation.json", content.encode())
    for sentence in evaluation.sentences():
        run.note(sentence)
    scores = {"dice": evaluation.mean()} | {f"dice_{names[label]}": evaluation.class_mean(label) for label in names}
    found = {f"test/{key}".replace(" ", "_"): value for key, value in scores.items() if value is not None}
    run.log(config.loop.steps, found)
    return evaluation
