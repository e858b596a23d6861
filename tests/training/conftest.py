"""A small store of phantoms: a bright ball in noise, unequal edges, two classes."""

from pathlib import Path

import numpy as np
import pytest

from medssl.geometry import Volume
from medssl.store.policy import StorePolicy
from medssl.store.volumes import StoredVolume, write_volume
from tests.downstream.conftest import small_archive

__all__ = ["ball_phantom", "ball_scans", "small_archive"]


def ball_phantom(seed: int) -> tuple[Volume, Volume]:
    """(scan, label): a bright ball (1) with a brighter core (2) at a random place; (X, Y, Z) = (30, 38, 26), 1 mm."""
    draw = np.random.default_rng(seed)
    shape = (30, 38, 26)
    centre = np.array(shape) / 2 + draw.uniform(-4, 4, 3)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid - centre, axis=-1)
    label = (distance < 9).astype(np.uint8) + (distance < 5).astype(np.uint8)
    scan = 100.0 + 80.0 * label + draw.normal(0, 15, shape)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    return Volume(scan.astype(np.float32), affine), Volume(label, affine)


@pytest.fixture(scope="session")
def ball_scans(tmp_path_factory: pytest.TempPathFactory) -> list[StoredVolume]:
    """Six stored phantoms with labels."""
    folder: Path = tmp_path_factory.mktemp("store")
    scans = []
    for seed in range(6):
        scan, label = ball_phantom(seed)
        scans.append(write_volume(folder, f"ball{seed}", scan, modality="MR", label=label, policy=StorePolicy()))
    return scans
