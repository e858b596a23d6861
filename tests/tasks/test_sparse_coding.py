import pytest
import torch
from small_world import SmallEncoder, SmallRegion, phantoms, trained
from torch.nn import functional as F

from medssl.encoders.build import build_encoder, describe
from medssl_tasks.sparse_coding import (
    SparseCoding,
    by_cell,
    cell_of,
    code_level,
    from_cells,
    infer,
    largest_curvature,
    lasso,
    to_cells,
)

DOUBLE = torch.float64


def task(**settings):
    torch.manual_seed(0)
    return SparseCoding(SmallEncoder(), SparseCoding.Config(**settings))


def test_codes_of_orthonormal_atoms_are_soft_thresholded():
    """Codes of orthonormal atoms are the soft thresholded correlations."""
    atoms = torch.linalg.qr(torch.randn(8, 8, dtype=DOUBLE))[0]
    cells = torch.randn(2, 5, 8, dtype=DOUBLE)
    correlation = cells @ atoms.T
    expected = correlation.sign() * (correlation.abs() - 0.3).clamp_min(0)
    found = infer(cells, atoms, sparsity=0.3, iterations=3, start=torch.zeros(2, 5, 8, dtype=DOUBLE))
    assert torch.allclose(found, expected, atol=1e-10)


def test_codes_meet_optimality_conditions():
    """Codes of more atoms than voxels meet the conditions of the optimum."""
    atoms = F.normalize(torch.randn(20, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)), dim=1)
    cells = torch.randn(1, 6, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    codes = infer(cells, atoms, sparsity=0.4, iterations=3000, start=torch.randn(1, 6, 20, dtype=DOUBLE))
    pull = (
        cells - codes @ atoms
    ) @ atoms.T  # lasso: equals sparsity * sign where a code is used, and is no larger elsewhere
    used = codes != 0
    assert 0 < used.sum() < codes.numel() / 2
    assert torch.allclose(pull[used], 0.4 * codes[used].sign(), atol=1e-6)
    assert (pull[~used].abs() <= 0.4 + 1e-6).all()


def test_inference_result_does_not_depend_on_start():
    """The start decides how long inference takes and not where it ends."""
    atoms = F.normalize(torch.randn(12, 8, dtype=DOUBLE), dim=1)
    cells = torch.randn(1, 4, 8, dtype=DOUBLE)
    starts = [torch.zeros(1, 4, 12, dtype=DOUBLE), 3 * torch.randn(1, 4, 12, dtype=DOUBLE)]
    ends = [infer(cells, atoms, sparsity=0.2, iterations=5000, start=start) for start in starts]
    energies = [lasso(cells, end, atoms, sparsity=0.2) for end in ends]
    assert torch.allclose(*energies, rtol=1e-8)


def test_lasso_has_closed_form_values():
    atoms, cells = torch.eye(4, dtype=DOUBLE), torch.tensor([[[3.0, 4.0, 0.0, 0.0]]], dtype=DOUBLE)
    assert lasso(cells, torch.zeros_like(cells), atoms, sparsity=0.5).item() == 12.5
    assert lasso(cells, cells, atoms, sparsity=0.5).item() == 3.5


def test_energy_passes_gradcheck():
    """The gradient of the energy is right in double precision."""
    cells, codes, atoms = (torch.randn(*s, dtype=DOUBLE, requires_grad=True) for s in ((1, 2, 3), (1, 2, 4), (4, 3)))
    assert torch.autograd.gradcheck(lambda x, z, d: lasso(x, z, d, sparsity=0.3), (cells, codes, atoms))


def test_from_cells_inverts_to_cells():
    """Cells are the blocks of a volume and put back they are the volume."""
    volume = torch.arange(2.0 * 4 * 6 * 8).view(2, 1, 4, 6, 8)
    cells = to_cells(volume, (2, 3, 4))
    assert torch.equal(cells[1, 3], volume[1, 0, :2, 3:, 4:].flatten())
    assert torch.equal(from_cells(cells, (2, 3, 4), like=volume), volume)


def test_code_level_has_strides_up_to_four():
    """Codes live at the coarsest level whose cells have at most four voxels an axis."""
    encoder = SmallEncoder()
    assert code_level(encoder) == 2
    encoder.strides = ((1, 1, 1), (1, 2, 2), (2, 8, 8))
    assert code_level(encoder) == 1


def test_largest_curvature_bounds_spectral_norm():
    """The largest curvature is the squared spectral norm and never below it."""
    for shape in ((128, 64), (20, 64), (512, 256), (3, 3)):
        atoms = F.normalize(torch.randn(*shape), dim=1)
        exact = torch.linalg.matrix_norm(atoms.double(), ord=2).item() ** 2
        assert exact * (1 - 1e-4) <= largest_curvature(atoms).item() <= 1.01 * exact
    assert largest_curvature(torch.eye(64)).item() == pytest.approx(1.0, rel=0.01)  # all eigenvalues alike


def test_by_cell_orders_cells_of_coarse_level():
    """Places coarser than a cell hold several cells in the order of the volume."""
    encoder = SmallEncoder()
    encoder.strides = ((16, 16, 16), (16, 16, 16), (16, 16, 16))
    assert code_level(encoder) == 0
    assert [cell_of(stride) for stride in ((16, 16, 16), (6, 8, 1), (2, 4, 4))] == [(4, 4, 4), (3, 4, 1), (2, 4, 4)]
    volume = torch.arange(2.0 * 8 * 16 * 16).view(2, 1, 8, 16, 16)
    cells, places = to_cells(volume, (4, 4, 4)), to_cells(volume, (8, 8, 8))  # (2, 4, 512)
    coarse = to_cells(places.reshape(8, 1, 8, 8, 8), (4, 4, 4)).reshape(2, 4, 8, 64)
    as_map = coarse.permute(0, 2, 3, 1).reshape(2, 8 * 64, 1, 2, 2)
    assert torch.equal(by_cell(as_map, (2, 2, 2)), cells)


def test_large_tokens_get_small_cells_and_head():
    """A transformer with large tokens gets small cells and a small head."""
    description = describe("vit", preset="tiny", patch=(96, 96, 96))
    with torch.device("meta"):
        subject = SparseCoding(build_encoder(description), SparseCoding.Config())
    assert subject.encoder.strides[0] == (16, 16, 16)
    assert subject.dictionary.shape == (128, 64)
    assert sum(weight.numel() for weight in subject.predictor.parameters()) < 2_000_000


def test_vit_learns_codes_finer_than_tokens():
    torch.manual_seed(0)
    options = {"patch_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}
    encoder = build_encoder(describe("vit", preset="tiny", patch=(16, 16, 16), options=options))
    subject = SparseCoding(encoder, SparseCoding.Config())
    assert (subject.cell, subject.subcells) == ((4, 4, 4), (2, 2, 2))
    views = subject.views(SmallRegion(phantoms(2, (16, 16, 16))))
    losses = trained(subject, views, 60)
    assert losses[-1] < 0.6 * subject(views).terms["trivial_loss"].item()


def test_atom_length_does_not_lower_energy():
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    before = subject(views).loss.item()
    with torch.no_grad():
        subject.dictionary.mul_(100.0)
    assert subject(views).loss.item() == pytest.approx(before, rel=1e-4)


def test_large_sparsity_leaves_trivial_energy():
    """Codes that are forbidden by their cost leave the trivial energy."""
    subject = task(sparsity=100.0)
    with torch.no_grad():
        subject.predictor.out.weight.zero_()
        subject.predictor.out.bias.zero_()
    step = subject(subject.views(SmallRegion(phantoms())))
    assert step.terms["active_fraction"].item() == 0.0
    assert step.loss.item() == pytest.approx(step.terms["trivial_loss"].item())
    assert step.terms["trivial_loss"].item() == pytest.approx(0.5, rel=1e-3)  # half the variance of a normalised scan


def test_auto_atoms_are_twice_the_voxels():
    """There are twice as many atoms as voxels in a cell unless said otherwise."""
    assert task().dictionary.shape == (128, 64)
    assert task(atoms=10).dictionary.shape == (10, 64)
    wide = SparseCoding(SmallEncoder(in_channels=8), SparseCoding.Config())
    assert wide.dictionary.shape == (512, 512)
