"""Each batched transform against MONAI's own, sample by sample, with the same parameters."""

import numpy as np
import pytest
import torch

from medssl import views as ours
from medssl.randomness import SampleRandom
from medssl.views.batch import LogUniform, Stream
from medssl.views.spatial import _draw

# Float32 against float32 in another order of operations.
TOLERANCE = 2e-5
BATCH, SHAPE = 3, (14, 18, 11)


@pytest.fixture(scope="module")
def monai():
    import monai.transforms

    return monai.transforms


@pytest.fixture(scope="module")
def images():
    field = torch.randn(BATCH, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.avg_pool3d(field, 3, 1, 1) * 3 + 0.5


def pieces(transform, images):
    parameters = transform.parameters(stream(), images)
    return transform.apply(images, parameters), parameters


def stream() -> Stream:
    return Stream(SampleRandom(5, range(BATCH), torch.device("cpu")), "stream")


def agree(mine: torch.Tensor, theirs: list, tolerance: float = TOLERANCE) -> None:
    for row, expected in zip(mine, theirs, strict=True):
        assert torch.allclose(row, torch.as_tensor(expected).as_subclass(torch.Tensor), atol=tolerance)


def test_scale_intensity(monai, images):
    out, p = pieces(ours.BatchRandScaleIntensity(0.4), images)
    agree(
        out,
        [
            monai.ScaleIntensity(minv=None, maxv=None, factor=float(f) - 1)(x)
            for x, f in zip(images, p["factor"], strict=True)
        ],
    )


def test_shift_intensity(monai, images):
    out, p = pieces(ours.BatchRandShiftIntensity(0.4), images)
    agree(out, [monai.ShiftIntensity(offset=float(o))(x) for x, o in zip(images, p["offset"], strict=True)])


@pytest.mark.parametrize("factors", [0.4, LogUniform(0.4)])
def test_scale_intensity_fixed_mean(monai, images, factors):
    out, p = pieces(ours.BatchRandScaleIntensityFixedMean(factors), images)
    theirs = monai.RandScaleIntensityFixedMean(prob=1.0, preserve_range=True)
    expected = []
    for x, scale in zip(images, p["scale"].tolist(), strict=True):
        theirs.factor, theirs._do_transform = scale - 1, True
        expected.append(theirs(x, randomize=False))
    agree(out, expected)
    assert len(set(p["scale"].tolist())) == BATCH


@pytest.mark.parametrize("invert", [False, True])
def test_adjust_contrast(monai, images, invert):
    out, p = pieces(ours.BatchRandAdjustContrast(gamma=(0.5, 3.0), invert_image=invert), images)
    agree(
        out, [monai.AdjustContrast(float(g), invert_image=invert)(x) for x, g in zip(images, p["gamma"], strict=True)]
    )


def test_gaussian_noise(monai, images):
    out, p = pieces(ours.BatchRandGaussianNoise(mean=0.1, std=0.3), images)
    theirs = monai.RandGaussianNoise(prob=1.0)
    expected = []
    for x, noise, std in zip(images, p["noise"], p["std"], strict=True):
        theirs.noise, theirs._do_transform = (noise * std + 0.1).numpy(), True
        expected.append(theirs(x, randomize=False))
    agree(out, expected)
    assert 0.0 < p["std"].min() < p["std"].max() < 0.3


def test_rician_noise(monai, images):
    out, p = pieces(ours.BatchRandRicianNoise(std=0.3, from_darkest=False), images)
    expected = [torch.sqrt((x + a) ** 2 + b**2) for x, a, b in zip(images, p["real"], p["imaginary"], strict=True)]
    agree(out, expected)
    theirs = monai.RandRicianNoise(prob=1.0, std=0.0)  # no noise: what remains is the magnitude
    agree(
        ours.BatchRandRicianNoise(std=0.0, from_darkest=False).apply(images, {k: 0 * v for k, v in p.items()}),
        [theirs(x) for x in images],
    )


def test_gaussian_smooth(monai, images):
    out, p = pieces(ours.BatchRandGaussianSmooth((0.3, 1.5), (0.3, 1.5), (0.3, 1.5)), images)
    agree(
        out, [monai.GaussianSmooth(sigma=s.tolist(), approx="erf")(x) for x, s in zip(images, p["sigma"], strict=True)]
    )


@pytest.mark.parametrize("degree", [1, 3])
def test_bias_field(monai, images, degree):
    out, p = pieces(ours.BatchRandBiasField(degree=degree, coeff_range=(-0.2, 0.3)), images)
    theirs = monai.RandBiasField(degree=degree, prob=1.0)
    expected = []
    for x, c in zip(images, p["coefficients"].double().numpy(), strict=True):
        n = range(degree + 1)
        # The order in which MONAI lists the powers.
        powers = [(i, j, k) for i in n for j in range(degree + 1 - i) for k in range(degree + 1 - i - j)]
        theirs._coeff, theirs._do_transform = [c[power] for power in powers], True
        expected.append(theirs(x, randomize=False))
    agree(out, expected)


def test_gibbs_noise(monai, images):
    out, p = pieces(ours.BatchRandGibbsNoise(alpha=(0.2, 0.8)), images)
    agree(out, [monai.GibbsNoise(alpha=float(a))(x) for x, a in zip(images, p["alpha"], strict=True)])


def test_histogram_shift(monai, images):
    out, p = pieces(ours.BatchRandHistogramShift((4, 9)), images)
    theirs = monai.RandHistogramShift(prob=1.0)
    expected = []
    for x, curve, points in zip(images, p["curve"], p["points"].int().tolist(), strict=True):
        theirs.reference_control_points = np.linspace(0, 1, points)
        theirs.floating_control_points, theirs._do_transform = curve[:points].numpy(), True
        expected.append(theirs(x, randomize=False))
    agree(out, expected)
    assert all(
        (np.diff(c[:n]) >= -1e-7).all() for c, n in zip(p["curve"].numpy(), p["points"].int().tolist(), strict=True)
    )


def test_simulate_low_resolution(monai, images):
    out, p = pieces(ours.BatchRandSimulateLowResolution(zoom_range=(0.4, 0.9)), images)
    theirs = monai.RandSimulateLowResolution(prob=1.0)
    expected = []
    for x, zoom in zip(images, p["zoom"].tolist(), strict=True):
        theirs.zoom_factor, theirs._do_transform = zoom, True
        expected.append(theirs(x, randomize=False))
    agree(out, expected)


def test_window_jitter(monai, images):
    out, p = pieces(ours.BatchRandWindow(low=(-1.0, -0.2), high=(0.2, 1.5)), images)
    expected = []
    for x, low, high in zip(images, p["low"].tolist(), p["high"].tolist(), strict=True):
        b = (float(x.min()), float(x.max()))
        expected.append(monai.ScaleIntensityRange(low, high, *b, clip=True)(x))
    agree(out, expected)


def test_affine(monai, images):
    transform = ours.BatchRandAffine(
        rotate_range=(0.4, 0.3, 0.5),
        shear_range=(0.1, 0.05, 0.1, 0.0, 0.1, 0.1),
        translate_range=(2.0, 3.0, 1.0),
        scale_range=(0.2, (-0.3, 0.1), 0.2),
    )
    out = transform.apply(images, transform.parameters(stream(), images))
    drawn = {n: _draw(stream(), n, r).tolist() for n, r in transform.ranges.items()}
    expected = []
    for row, x in enumerate(images):
        affine = monai.Affine(
            rotate_params=drawn["rotate"][row],
            shear_params=drawn["shear"][row],
            translate_params=drawn["translate"][row],
            scale_params=drawn["scale"][row],
            padding_mode="zeros",
            mode="bilinear",
        )
        dark = x.min()
        expected.append(affine(x - dark)[0] + dark)
    agree(out, expected, tolerance=2e-4)


def test_elastic_deformation_matches_monai_resample(monai, images):
    transform = ours.BatchRandAffine(elastic_voxels=3.0, rotate_range=(0.2, 0.2, 0.2))
    out, p = pieces(transform, images)
    from medssl.views.affine import elastic_displacement

    bent = elastic_displacement(p["control"], SHAPE)
    assert bent.abs().max() <= 3.0
    grid = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in SHAPE], indexing="ij"))
    middle = torch.tensor([(n - 1) / 2 for n in SHAPE]).view(3, 1, 1, 1)
    expected = []
    for row, x in enumerate(images):
        m = p["matrix"][row]
        place = torch.einsum("ab,bdhw->adhw", m[:, :3], grid) + m[:, 3].view(3, 1, 1, 1) + bent[row]
        dark = x.min()
        resampled = monai.Resample(mode="bilinear", padding_mode="zeros")(x - dark, grid=place - middle)
        expected.append(resampled + dark)
    agree(out, expected, tolerance=2e-4)


def test_elastic_displacement_matches_scipy_b_spline():
    from scipy.interpolate import BSpline

    from medssl.views.affine import spline_matrix

    points, length = 7, 23
    matrix = spline_matrix(length, points, torch.device("cpu")).numpy()
    knots = np.arange(-2, points + 2.0)  # the i-th cubic basis function is centred on i
    x = np.linspace(1, points - 2, length)
    expected = np.stack([BSpline.basis_element(knots[i : i + 5], extrapolate=False)(x) for i in range(points)], axis=1)
    assert np.allclose(matrix, np.nan_to_num(expected), atol=1e-6)


def test_flips_and_quarter_turns_move_whole_voxels():
    image = torch.randn(8, 1, 5, 6, 6)
    transform = ours.BatchRandAffine(prob=1.0, flip_prob=(0.5, 0.5, 0.5), rotate90=True)
    out = transform(image, SampleRandom(5, range(8), torch.device("cpu")))
    turns = 0
    for x, y in zip(image, out, strict=True):
        variants = [torch.rot90(x.flip(f), k, (2, 3)) for k in range(4) for f in ([], [1], [2], [1, 2])]
        assert any(torch.allclose(y, v, atol=1e-4) for v in variants)
        turns += not torch.allclose(y, x, atol=1e-4)
    assert turns > 3


def test_batch_transforms_have_monai_random_state(monai, images):
    chain = monai.Compose([ours.BatchRandGaussianNoise(1.0), ours.BatchRandScaleIntensity(0.5, prob=1.0)])
    outs = [chain.set_random_state(seed=s)(images) for s in (3, 3, 4)]
    assert isinstance(ours.BatchRandGaussianNoise(), monai.RandomizableTransform)
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
