"""Every task on regions read from a store, with the default encoder, on cubic voxels and on thick slices."""

import numpy as np
import pytest
import torch
from joint_world import TASKS as JOINT
from stored_scans import noise, store_scan

from medssl.encoders.build import build_encoder, describe
from medssl.loading.loader import batch_at
from medssl.loading.plan import BatchPlan
from medssl.plugins import list_tasks, load_task, task_config
from medssl.views.region import Region

PATCH = (16, 32, 16)
SETTINGS = {
    "adversarial": {"width": 4},
    "combine": {"tasks": [{"name": "rotation", "options": {"rotations_per_patch": 1}}, {"name": "vae"}]},
    "jigsaw": {"grid": [1, 2, 1], "permutations": 2},
    "masked-volume": {"masking": "sparse"},
    "pseudo-segmentation": {"clusters": 4},
    "rotation": {"rotations_per_patch": 1},
    "slice-order": {"slabs": 2},
    "vae": {"latents": 4},
}
# Joint tasks are tested on stored scans in test_joint_embedding.py.
TASKS = [entry.name for entry in list_tasks() if entry.built_in and entry.name not in JOINT]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    shapes = [(50, 60, 40), (18, 34, 17)]  # the second is smaller than what most tasks read
    return [
        store_scan(folder, f"scan-{i}", (noise(shape, i) / 20 + 900).astype(np.int16)) for i, shape in enumerate(shapes)
    ]


def encoder(spacing_mm):
    torch.manual_seed(0)
    filters = [4, 8, 8]
    return build_encoder(describe("dynunet", options={"filters": filters}, patch=PATCH, spacing_mm=spacing_mm))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0)], ids=["cubic", "thick slices"])
@pytest.mark.parametrize("name", TASKS)
def test_task_trains_on_stored_scans_with_default_encoder(scans, name, spacing_mm):
    """A task learns from stored scans with the default encoder."""
    cls = load_task(name).cls
    task = cls(encoder(spacing_mm), task_config(cls, SETTINGS.get(name, {})))
    plan = BatchPlan(scans, task.crops(PATCH), batch_size=2, seed=0)
    region = Region(batch_at(plan), device=torch.device("cpu"), seed=0)
    with torch.no_grad():
        views = task.views(region)
    step = task(views)
    step.loss.backward()
    assert torch.isfinite(step.loss)
    assert step.energy.shape == (2,)
    assert all(weight.grad is not None for weight in task.parameters())
    assert all(torch.isfinite(picture).all() for picture in step.pictures.values())
