"""The value of each setting that was "auto" in a pretraining, and why: said at its start and written to its record."""

from collections.abc import Sequence

from lightning_fabric import Fabric

from medssl.config import PretrainConfig
from medssl.encoders.build import describe
from medssl.pretext.task import AUTO, PretextTask, automatic_settings
from medssl.shapes import Shape3D
from medssl.store.volumes import StoredVolume
from medssl.training.fabric import chosen_precision, worker_count
from medssl.training.online_probe import OnlineProbe
from medssl.training.watch import CollapseWatch


def chosen_values(
    config: PretrainConfig, task: PretextTask, *, scans: Sequence[StoredVolume], patch: Shape3D, fabric: Fabric
) -> dict[str, str]:
    """By the name of each setting that was "auto": the value that was chosen, and the reason."""
    loop = config.loop
    device = "GPU" if fabric.device.type == "cuda" else "CPU"
    evaluations = f"about twenty in {loop.steps} steps"
    values = {
        "patch": (config.patch, f"{list(patch)}: the median scan in multiples of 16, cut to what a {device} takes"),
        "loop.precision": (loop.precision, f"{chosen_precision(loop)}: what a {device} does best"),
        "loop.devices": (loop.devices, f"{fabric.world_size}: all that there are"),
        "loop.workers": (loop.workers, f"{worker_count(loop)}: on a CPU readers would take the network's cores"),
        "loop.diagnose_every": (loop.diagnose_every, f"{CollapseWatch.interval(AUTO, loop.steps)}: {evaluations}"),
        "loop.pictures_every": (loop.pictures_every, "after step 1, every power of two above 8, and at the end"),
    }
    if config.probe.num_labelled:
        every = OnlineProbe.interval(AUTO, loop.steps)
        values["probe.every"] = (config.probe.every, f"{every}: about ten in {loop.steps} steps")
    chosen = {name: why for name, (setting, why) in values.items() if setting == AUTO}
    of_task = {f"task.{name}": why for name, why in automatic_settings(task, patch=patch, steps=loop.steps).items()}
    return chosen | _encoder_preset(config, scans, patch=patch) | of_task


def _encoder_preset(config: PretrainConfig, scans: Sequence[StoredVolume], *, patch: Shape3D) -> dict[str, str]:
    if config.encoder.preset != AUTO:
        return {}
    reasons: list[str] = []
    encoder, spacing_mm = config.encoder, scans[0].spacing_mm
    describe(encoder.name, options=encoder.options, patch=patch, spacing_mm=spacing_mm, explain=reasons.append)
    return {"encoder.preset": "; ".join(reasons)} if reasons else {}
