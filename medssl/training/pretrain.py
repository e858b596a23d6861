"""Pretraining: from a cohort and a task's name to an encoder in a run folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning_fabric import Fabric

from medssl.config import PretrainConfig
from medssl.plugins.exits import exits_are_errors
from medssl.pretext.gradient_cache import check_chunks
from medssl.progress import Progress, Silent
from medssl.runs.observer import Observer, no_observer
from medssl.runs.run import Run
from medssl.store.volumes import StoredVolume
from medssl.training.auto_values import chosen_values
from medssl.training.candidates import EncoderCandidates
from medssl.training.fabric import start_fabric
from medssl.training.loop import train
from medssl.training.online_probe import online_probe
from medssl.training.opening import open_run
from medssl.training.preparation import prepare
from medssl.training.trainee import Training
from medssl.training.watch import CollapseWatch


def pretrain(
    config: PretrainConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    observe: Observer = no_observer,
) -> Path:
    """Train an encoder with one pretext task and return the run folder, which then holds encoder.safetensors.

    The value of each setting that is "auto" is shown and recorded.

    Args:
        config: The settings.
        out: The run folder: new, or with `resume` that of a run to continue.
        resume: Whether to go on from the last checkpoint in `out`.
        progress: Shows the training to a person.
        observe: Watches the run while it trains, such as the mirror in MLflow.

    Raises:
        DataError: The cohort has no scans in `config.splits`.
        ConfigError: A setting does not fit, as `prepare`, `online_probe` and `check_chunks` find.
        PluginError: The task cannot be found or loaded.
        UsageError: `out` is taken, or cannot be continued with these settings.
        MedsslError: What `train` raises.
    """
    prepared = prepare(config)
    loaded, task, scans = prepared.loaded, prepared.task, prepared.scans
    patch, seed = scans.patch, config.loop.seed
    probe = online_probe(task, config.probe, scans.cohort, patch=patch, seed=seed)
    if config.gradient_cache:
        check_chunks(task)
    metadata = {
        "task": loaded.cls.name,
        "task_origin": loaded.origin,
        "task_family": loaded.cls.family,
        "encoder": task.encoder.description.model_dump(mode="json"),
        "patch": list(patch),
        "scans": len(scans.stored),
        "modalities": modalities_of(scans.stored),
        "store_policy": dict(scans.cohort.policy),
        "cohort_digest": scans.cohort.digest,
    }
    progress = progress or Silent()
    fabric = start_fabric(config.loop)
    auto = chosen_values(config, task, scans=scans.stored, patch=patch, fabric=fabric)
    probed = {"probe_scans": [scan.scan_id for scan in probe.scans]} if probe else {}
    run = open_run(
        out,
        kind="pretrain",
        config=config,
        metadata=metadata | {"auto": auto} | probed,
        resume=resume,
        fabric=fabric,
        progress=progress,
    )
    with recorded(run, observe=observe, fabric=fabric), exits_are_errors(loaded.origin):
        for name, why in auto.items():
            progress.say(f"{name} is auto: {why}")
        candidates = EncoderCandidates(task, select=config.select)
        training = Training(
            module=task,
            plan=prepared.plan,
            optim=config.optim,
            loop=config.loop,
            chunk=config.gradient_cache,
            watch=CollapseWatch(task, scans.stored, patch=patch, seed=seed, every=config.loop.diagnose_every),
            candidates=candidates,
            probe=probe,
        )
        train(training, fabric=fabric, run=run, progress=progress, resume=resume)
        if fabric.is_global_zero:
            choice = candidates.save_best(run, metadata=metadata | {"steps": config.loop.steps})
            if choice:
                progress.say(f"kept the encoder of step {choice.step}: {choice.reason}")
    return out


@contextmanager
def recorded(run: Run, *, observe: Observer, fabric: Fabric) -> Iterator[None]:
    """Set the run's status when the block ends, and let `observe` watch it; on rank 0, the only one that writes."""
    if not fabric.is_global_zero:
        yield
        return
    with observe(run), run.recording():
        yield


def modalities_of(scans: Sequence[StoredVolume]) -> list[str]:
    """The modalities of the scans, sorted: each is resampled and normalised in its own way."""
    return sorted({scan.modality for scan in scans})
