"""The losses of simclr against closed forms and naive loops, and what its local part makes of an overlap."""

import math
from pathlib import Path

import pytest
import torch
from joint_world import PATCH, make, region, store_phantoms
from torch import Tensor
from torch.nn import functional as F

from medssl.pretext.projection import features_at
from medssl_tasks.simclr import nt_xent, point_contrast

DOUBLE = torch.float64


def random_units(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize(
    ("volumes", "temperature", "expected"), [(2, 0.5, 0.23954477), (4, 0.5, 0.59443766), (8, 0.2, 0.09014345)]
)
def test_nt_xent_of_orthogonal_pairs(volumes: int, temperature: float, expected: float) -> None:
    eye = torch.eye(volumes, dtype=DOUBLE)
    assert nt_xent(eye, eye, temperature=temperature).item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("volumes", [2, 4])
def test_nt_xent_of_collapsed_encoder(volumes: int) -> None:
    """A collapsed encoder costs the logarithm of the other crops."""
    same = torch.ones(volumes, 3, dtype=DOUBLE) / math.sqrt(3)
    assert nt_xent(same, same, temperature=0.2).item() == pytest.approx(math.log(2 * volumes - 1), abs=1e-12)


def test_nt_xent_of_swapped_partners() -> None:
    eye = torch.eye(2, dtype=DOUBLE)
    assert nt_xent(eye, eye.flip(0), temperature=0.5).item() == pytest.approx(math.log(2 + math.exp(2)), abs=1e-12)


def test_nt_xent_of_single_pair() -> None:
    assert nt_xent(random_units(1, 4), random_units(1, 4, seed=1), temperature=0.1).item() == 0.0


def test_loss_matches_naive_loop() -> None:
    a, b = random_units(5, 7), random_units(5, 7, seed=1)
    rows = torch.cat([a, b])
    terms = []
    for i in range(10):
        partner = (i + 5) % 10
        others = sum(math.exp(float(rows[i] @ rows[j]) / 0.3) for j in range(10) if j != i)
        terms.append(-math.log(math.exp(float(rows[i] @ rows[partner]) / 0.3) / others))
    assert nt_xent(a, b, temperature=0.3).item() == pytest.approx(sum(terms) / 10, abs=1e-12)


def test_nt_xent_ignores_order() -> None:
    """Order of pairs and of views does not matter."""
    a, b = random_units(6, 4), random_units(6, 4, seed=1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    value = nt_xent(a, b, temperature=0.2)
    assert torch.allclose(nt_xent(a[order], b[order], temperature=0.2), value, atol=1e-14)
    assert torch.allclose(nt_xent(b, a, temperature=0.2), value, atol=1e-14)


def test_nt_xent_gradient_matches_finite_differences() -> None:
    """The gradient of nt xent is that of finite differences."""
    raw = torch.randn(3, 4, dtype=DOUBLE, requires_grad=True, generator=torch.Generator().manual_seed(3))
    other = random_units(3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: nt_xent(F.normalize(x, dim=1), other, temperature=0.3), (raw,))


def points(batch: int, count: int, *, spread: float = 100.0) -> dict[str, Tensor]:
    place = spread * torch.rand(batch, count, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))
    return {"positions_voxels": place, "valid": torch.ones(batch, dtype=torch.bool)}


def test_point_contrast_of_collapsed_points() -> None:
    """Collapsed points cost the logarithm of their number whatever is left out."""
    same = torch.ones(2, 16, 4, dtype=DOUBLE) / 2
    given = points(2, 16, spread=20.0)
    loss = point_contrast(same, same, temperature=0.2, margin_voxels=6.0, **given)
    assert torch.allclose(loss, torch.full((2,), math.log(16), dtype=DOUBLE), atol=1e-12)


def test_point_contrast_matches_naive_loop() -> None:
    a, b, given = random_units(1, 9, 5), random_units(1, 9, 5, seed=1), points(1, 9, spread=10.0)
    place, terms = given["positions_voxels"][0], []
    for x, y in ((a[0], b[0]), (b[0], a[0])):
        for i in range(9):
            far = [j for j in range(9) if j != i and float((place[i] - place[j]).norm()) >= 3.0]
            mean = sum(math.exp(float(x[i] @ y[j]) / 0.2) for j in far) / len(far)
            terms.append(math.log1p(8 * mean / math.exp(float(x[i] @ y[i]) / 0.2)))
    loss = point_contrast(a, b, temperature=0.2, margin_voxels=3.0, **given)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_pair_without_overlap_costs_nothing() -> None:
    """A pair without overlap costs nothing and has a gradient of zero."""
    a = random_units(1, 8, 4).requires_grad_()
    given = points(1, 8) | {"valid": torch.zeros(1, dtype=torch.bool)}
    loss = point_contrast(a, random_units(1, 8, 4, seed=1), temperature=0.2, margin_voxels=4.0, **given)
    loss.sum().backward()
    assert loss.item() == 0.0
    assert a.grad is not None
    assert torch.equal(a.grad, torch.zeros_like(a))


def test_points_without_negatives_have_finite_gradient() -> None:
    """Points that are all neighbours have a finite gradient."""
    a = random_units(1, 8, 4).requires_grad_()
    point_contrast(
        a, random_units(1, 8, 4, seed=1), temperature=0.2, margin_voxels=50.0, **points(1, 8, spread=1.0)
    ).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_matching_points_are_the_same_in_scan(tmp_path: Path) -> None:
    """Points of a pair show the same place of the scan."""
    """Read from both crops at matching points, an image that was only moved, turned and scaled has the same values."""
    task = make("simclr", intensity=0.0, local_points=64)
    views = task.views(region(task, store_phantoms(tmp_path, 3)))
    assert views["points_valid"].all()
    values = [features_at([views[name]], views[f"points_{name}"], PATCH)[..., 0] for name in ("a", "b")]
    assert torch.corrcoef(torch.stack([value.flatten() for value in values]))[0, 1] > 0.97
    shifted = values[1].roll(1, dims=1)
    assert torch.corrcoef(torch.stack([values[0].flatten(), shifted.flatten()]))[0, 1] < 0.7


def test_decoder_is_exported_if_it_describes_points() -> None:
    """A decoder is exported only where it describes the points."""
    assert make("simclr").exported_decoder() is None
    assert make("simclr with a decoder").exported_decoder() is not None
