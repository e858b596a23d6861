"""Pretraining: from a cohort and a task's name to an encoder in a run folder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from lightning_fabric import Fabric

from medssl.config import PretrainConfig
from medssl.plugins.exits import exits_are_errors
from medssl.pretext.gradient_cache import check_chunks
from medssl.progress import Progress, Silent
from medssl.runs.run import Run
from medssl.store.volumes import StoredVolume
from medssl.training.automatic import chosen_values
from medssl.training.fabric import start_fabric
from medssl.training.loop import train
from medssl.training.online_probe import online_probe
from medssl.training.opening import open_run
from medssl.training.preparation import prepare
from medssl.training.trainee import Training
from medssl.training.watch import CollapseWatch

Observer = Callable[[Run], AbstractContextManager[object]]
"""Starts whatever watches a run (the MLflow mirror) and stops it when the run is over."""


def no_observer(run: Run) -> AbstractContextManager[object]:
    """Nobody watches."""
    return nullcontext()


def pretrain(
    config: PretrainConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    observe: Observer = no_observer,
) -> Path:
    """Train an encoder with one pretext task and return the run folder, which then holds encoder.safetensors.

    Raises DataError when the cohort has no scans in `config.splits`, ConfigError and PluginError for settings and
    tasks, and what `open_run` and `train` raise. What "auto" came to is said and recorded.
    """
    prepared = prepare(config)
    loaded, task, plan = prepared.loaded, prepared.task, prepared.plan
    cohort, scans, patch = prepared.scans.cohort, prepared.scans.stored, prepared.scans.patch
    probe = online_probe(task, config.probe, cohort, patch=patch, seed=config.loop.seed)
    if config.gradient_cache:
        check_chunks(task)
    facts = {
        "task": loaded.cls.name,
        "task_origin": loaded.origin,
        "task_family": loaded.cls.family,
        "encoder": task.encoder.description.model_dump(mode="json"),
        "patch": list(patch),
        "scans": len(scans),
        "modalities": modalities_of(scans),
        "store_policy": dict(cohort.policy),
        "cohort_digest": cohort.digest,
    }
    progress = progress or Silent()
    fabric = start_fabric(config.loop)
    chosen = chosen_values(config, task, scans=scans, patch=patch, fabric=fabric)
    labelled = {"probe_scans": [scan.scan_id for scan in probe.scans]} if probe else {}
    run = open_run(
        out,
        kind="pretrain",
        config=config,
        facts=facts | {"auto": chosen} | labelled,
        resume=resume,
        fabric=fabric,
        progress=progress,
    )
    with recorded(run, observe=observe, fabric=fabric), exits_are_errors(loaded.origin):
        for name, why in chosen.items():
            progress.say(f"{name} is auto: {why}")
        watch = CollapseWatch(
            task, scans, patch=patch, seed=config.loop.seed, every=config.loop.diagnose_every, select=config.select
        )
        training = Training(
            module=task,
            plan=plan,
            optim=config.optim,
            loop=config.loop,
            chunk=config.gradient_cache,
            watch=watch,
            probe=probe,
        )
        train(training, fabric=fabric, run=run, progress=progress, resume=resume)
        if fabric.is_global_zero:
            choice = watch.save_chosen(run, facts=facts | {"steps": config.loop.steps})
            if choice:
                progress.say(f"kept the encoder of step {choice.step}: {choice.reason}")
    return out


@contextmanager
def recorded(run: Run, *, observe: Observer, fabric: Fabric) -> Iterator[None]:
    """Set the run's status when the block ends, while somebody may watch; on rank 0, the only one that writes."""
    if not fabric.is_global_zero:
        yield
        return
    with observe(run), run.recording():
        yield


def modalities_of(scans: Sequence[StoredVolume]) -> list[str]:
    """Every modality that a network trained on these scans has seen: each is resampled and normalised its own way."""
    return sorted({scan.modality for scan in scans})
