"""What holds for every transform of a batch: samples are independent, inputs untouched, half precision safe, nothing
visits the host.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_scans import noise, store_scan
from torch.overrides import TorchFunctionMode

from medssl import views as ours
from medssl.errors import ConfigError
from medssl.loading.crops import Crop
from medssl.loading.loader import batch_at
from medssl.loading.plan import BatchPlan
from medssl.randomness import SampleRandom
from medssl.views.intensity import IntensityChain
from medssl.views.masks import block_mask
from medssl.views.region import Region

CPU = torch.device("cpu")
TRANSFORMS: dict[str, Callable[[], Callable[..., torch.Tensor]]] = {
    "scale": lambda: ours.BatchRandScaleIntensity(0.5, prob=0.7),
    "shift": lambda: ours.BatchRandShiftIntensity(0.5, prob=0.7),
    "contrast": lambda: ours.BatchRandAdjustContrast(prob=0.7),
    "fixed-mean": lambda: ours.BatchRandScaleIntensityFixedMean(0.5, prob=0.7),
    "linear": lambda: ours.BatchCompose(
        [
            ours.BatchRandGaussianNoise(0.5),
            ours.BatchRandScaleIntensity(0.5, prob=0.5),
            ours.BatchRandShiftIntensity(0.5, prob=0.5),
        ]
    ),
    "histogram": lambda: ours.BatchRandHistogramShift((3, 8), prob=0.7),
    "window": lambda: ours.BatchRandWindow(prob=0.7),
    "noise": lambda: ours.BatchRandGaussianNoise(prob=0.7),
    "rician": lambda: ours.BatchRandRicianNoise(prob=0.7),
    "smooth": lambda: ours.BatchRandGaussianSmooth(prob=0.7),
    "bias": lambda: ours.BatchRandBiasField(prob=0.7),
    "gibbs": lambda: ours.BatchRandGibbsNoise(prob=0.7),
    "low-resolution": lambda: ours.BatchRandSimulateLowResolution(prob=0.7),
    "affine": lambda: ours.BatchRandAffine(
        prob=0.7, rotate_range=(0.5, 0.5, 0.5), scale_range=(0.2, 0.2, 0.2), rotate90=True, elastic_voxels=1.5
    ),
    "chain": lambda: IntensityChain(2.0),
    "compose": lambda: ours.BatchCompose(
        [ours.BatchRandGaussianNoise(0.5), ours.BatchRandGaussianNoise(0.5), ours.BatchRandGaussianSmooth(prob=0.5)]
    ),
}
EDGES = st.tuples(*(st.integers(3, 14),) * 3)


@pytest.mark.parametrize("name", TRANSFORMS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=EDGES, batch=st.integers(2, 4), channels=st.integers(1, 2), seed=st.integers(0, 2**31))
def test_transform_of_batch_equals_single_samples(name, shape, batch, channels, seed):
    images = torch.randn(batch, channels, *shape, generator=torch.Generator().manual_seed(seed))
    before, numbers = images.clone(), [11 * i + 3 for i in range(batch)]
    transform = TRANSFORMS[name]()
    together = transform(images, SampleRandom(seed, numbers, CPU), "view")
    assert torch.equal(images, before)
    assert together.data_ptr() != images.data_ptr()
    for row, number in enumerate(numbers):
        alone = transform(images[row : row + 1], SampleRandom(seed, [number], CPU), "view")
        assert torch.allclose(together[row], alone[0], atol=1e-4)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_transform_half_precision_is_safe(name, dtype):
    images = 2 * torch.randn(3, 1, 9, 10, 8, generator=torch.Generator().manual_seed(0))
    random, transform = SampleRandom(1, [0, 1, 2], CPU), TRANSFORMS[name]()
    out = transform(images.to(dtype), random, "view")
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    exact = transform(images.to(dtype).float(), random, "view")
    assert (out.float() - exact).abs().mean() < 0.02 * exact.std()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_of_constant_images_is_finite(name):
    out = TRANSFORMS[name]()(torch.full((3, 1, 6, 7, 8), -1.5), SampleRandom(1, [0, 1, 2], CPU), "view")
    assert torch.isfinite(out).all()


class HostVisits(TorchFunctionMode):
    """Records every call that would carry a volume to the host, or make the host wait for the device."""

    WAITING = frozenset({"item", "tolist", "nonzero", "__bool__", "__float__", "__int__", "__index__", "is_nonzero"})
    CARRYING = frozenset({"numpy", "cpu", "__array__", "tolist"})
    # Made on the host and copied to the device while the host waits: `torch.tensor(..., device=)`, a list as an index.
    COPYING = frozenset({"tensor", "as_tensor"})
    INDEXING = frozenset({"__getitem__", "__setitem__"})
    SMALL = 4096  # numbers: parameters of a batch, control points and kernels

    def __init__(self) -> None:
        super().__init__()
        self.visits: list[str] = []

    def __enter__(self):
        # Not routed through the mode, as it takes no tensor.
        self.from_numpy, torch.from_numpy = torch.from_numpy, self._arrive
        return super().__enter__()

    def __exit__(self, *error):
        torch.from_numpy = self.from_numpy
        return super().__exit__(*error)

    def _arrive(self, array: np.ndarray) -> torch.Tensor:
        if array.size > self.SMALL:
            self.visits.append("arrives: from_numpy")
        return self.from_numpy(array)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, tensors = func.__name__, [a for a in args if isinstance(a, torch.Tensor)]
        large = any(t.numel() > self.SMALL for t in tensors)
        if name in self.WAITING and tensors and not self._on_host_by_design(tensors[0]):
            self.visits.append(f"waits: {name}")
        if name in self.CARRYING and large:
            self.visits.append(f"carries: {name}")
        index = args[1] if name in self.INDEXING else None
        if name in self.COPYING or any(isinstance(i, list) for i in (index if isinstance(index, tuple) else (index,))):
            self.visits.append(f"copies: {name}")
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _on_host_by_design(tensor: torch.Tensor) -> bool:
        """Float64 marks numbers that were drawn on the host and stay there, such as the zoom of low resolution."""
        return tensor.dtype == torch.float64


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_never_visits_host(name):
    images = torch.randn(4, 1, 20, 20, 20)
    with HostVisits() as watch:
        TRANSFORMS[name]()(images, SampleRandom(1, range(4), CPU), "view")
        block_mask(SampleRandom(1, range(4), CPU), "m", shape=(20, 20, 20), block=(5, 5, 5), ratio=0.5)
    assert watch.visits == []


def test_host_visits_are_detected():
    images = torch.randn(1, 1, 20, 20, 20)
    with HostVisits() as watch:
        float(images.mean())
        images.numpy()
        torch.from_numpy(np.zeros(5000))
        images[[0, 0]]
        torch.tensor([1.0], device=images.device)
    seen = ["waits: __float__", "carries: numpy", "arrives: from_numpy", "copies: __getitem__", "copies: tensor"]
    assert watch.visits == seen


def test_crop_and_chain_do_not_wait_for_device(tmp_path):
    region = region_of(tmp_path, CPU)
    with HostVisits() as watch:
        chain_of(region)
    assert [visit for visit in watch.visits if "__getitem__" in visit or "tensor" in visit] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_crop_and_chain_do_not_wait_for_gpu(tmp_path):
    region = region_of(tmp_path, torch.device("cuda"))
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        chain_of(region)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def region_of(folder: Path, device: torch.device) -> Region:
    """A batch of eight patches of which some are turned."""
    scans = [store_scan(folder, f"s{i}", noise((30, 28, 26), i)) for i in range(3)]
    crops = {"patch": Crop(size=(16, 14, 12), rotation_deg=(20.0, 20.0, 20.0), probability=0.5)}
    plan = BatchPlan(scans, crops, batch_size=8, seed=0)
    return Region(batch_at(plan), device=device, seed=0)


def chain_of(region: Region) -> torch.Tensor:
    hidden = block_mask(region.random, "m", shape=(16, 14, 12), block=(4, 4, 4), ratio=0.5)
    return IntensityChain(2.0)(region.crop("patch"), region.random, "view") * hidden


def test_affine_labels_follow_images():
    images = torch.nn.functional.interpolate(torch.randn(4, 1, 4, 4, 4), size=(16, 16, 16), mode="trilinear")
    labels = (images > 0.2).long() * 3
    transform = ours.BatchRandAffine(prob=1.0, rotate_range=(0.4, 0.4, 0.4), elastic_voxels=2.0)
    moved, moved_labels = transform.with_labels(images, labels, SampleRandom(1, range(4), CPU), "view")
    assert moved_labels.dtype == torch.int64
    assert set(moved_labels.unique().tolist()) <= {0, 3}
    assert ((moved > 0.2) == (moved_labels == 3)).float().mean() > 0.9
    assert ((images > 0.2) == (moved_labels == 3)).float().mean() < 0.9


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: ours.BatchRandGaussianNoise(prob=1.5), "prob=1.5"),
        (lambda: ours.BatchRandAdjustContrast(gamma=(0.0, 1.0)), "gamma"),
        (lambda: ours.BatchRandBiasField(degree=0), "degree=0"),
        (lambda: ours.BatchRandGibbsNoise(alpha=(0.5, 1.5)), "alpha"),
        (lambda: ours.BatchRandHistogramShift(2), "num_control_points=2"),
        (lambda: ours.BatchRandWindow(low=(-1.0, 1.0), high=(0.5, 2.0)), "empty"),
        (lambda: ours.BatchRandAffine(elastic_points=3), "elastic_points=3"),
        (lambda: ours.BatchRandAffine(rotate_range=(0.1,) * 4), "4 ranges"),
    ],
)
def test_invalid_settings_are_named(make, word):
    with pytest.raises(ConfigError, match=word):
        make()
