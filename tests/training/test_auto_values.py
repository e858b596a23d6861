"""What `auto` came to is said at the start of a run and stands in its record."""

import json

import pytest
from lightning_fabric import Fabric

from medssl.config import LoopConfig, PretrainConfig
from medssl.plugins import list_tasks
from medssl.pretext.momentum import momentum_at
from medssl.progress import Silent
from medssl.training.auto_values import chosen_values
from medssl.training.preparation import prepare
from medssl.training.pretrain import pretrain


class Said(Silent):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_auto_values_are_shown_and_recorded_with_reasons(small_archive, tmp_path):
    said = Said()
    loop = LoopConfig(steps=1, batch_size=2, devices=1, pictures_every=100, diagnose_every=40)
    config = PretrainConfig(cohort=small_archive.cohort, task="denoising", loop=loop)
    run = pretrain(config, tmp_path / "run", progress=said)
    chosen = json.loads((run / "run.json").read_text())["metadata"]["auto"]
    assert set(chosen) == {"patch", "encoder.preset", "loop.precision", "loop.workers"}
    assert chosen["patch"].startswith("[16, 16, 16]: ")
    assert chosen["loop.precision"].startswith(("32-true: ", "bf16-mixed: "))
    assert "tiny" in chosen["encoder.preset"] or "GPU" in chosen["encoder.preset"]
    for name, why in chosen.items():
        assert f"{name} is auto: {why}" in said.lines


@pytest.mark.parametrize("name", [entry.name for entry in list_tasks() if entry.name != "combine"])
def test_auto_values_cover_every_setting_of_a_task(name, small_archive):
    config = PretrainConfig(cohort=small_archive.cohort, task=name, encoder={"preset": "tiny"})
    prepared = prepare(config)
    task, patch = prepared.task, prepared.scans.patch
    fabric = Fabric(accelerator="cpu", devices=1)
    chosen = chosen_values(config, task, scans=prepared.scans.stored, patch=patch, fabric=fabric)
    asked = {key for key in type(task).Config.model_fields if getattr(task.config, key) == "auto"}
    found = {key.removeprefix("task."): why for key, why in chosen.items() if key.startswith("task.")}
    assert set(found) == asked
    values = task.automatic(patch, config.loop.steps)
    for key, why in found.items():
        value, _, rule = why.partition(": ")
        assert value == str(values[key])
        assert len(rule) > 10
    if "momentum" in found:
        assert float(found["momentum"].partition(":")[0]) == pytest.approx(
            momentum_at(0, config.loop.steps, base="auto"), abs=1e-4
        )
