"""The monitor over real trainings of a small encoder: what keeps features apart is switched off, and it is named."""

import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medssl.diagnostics.features import evaluating, extract_features
from medssl.diagnostics.monitor import CollapseMonitor, rank_fraction
from medssl.encoders.encoder import Encoder, EncoderDescription
from medssl.pretext.task import Step

PATCH = (16, 16, 16)


class PatchEncoder(Encoder):
    """Two strided convolutions: what the monitor watches is features, and these cost a millisecond."""

    def __init__(self):
        super().__init__()
        self.description = EncoderDescription(name="patches")
        self.channels, self.strides = (8, 16), ((2, 2, 2), (4, 4, 4))
        self.first, self.bottleneck = nn.Conv3d(1, 8, 2, stride=2), nn.Conv3d(8, 16, 2, stride=2)

    def forward(self, image):
        first = F.leaky_relu(self.first(image))
        return [first, self.bottleneck(first)]

    def make_decoder(self, out_channels):
        raise NotImplementedError


def encoder_of(seed=0):
    torch.manual_seed(seed)
    return PatchEncoder()


def scans(count, seed=0):
    """Volumes with a bright ball of random place, size and brightness in noise."""
    draw = torch.Generator().manual_seed(seed)
    axes = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, edge) for edge in PATCH], indexing="ij"))
    places = torch.rand(count, 3, 1, 1, 1, generator=draw) * 1.2 - 0.6
    radii = 0.2 + 0.5 * torch.rand(count, 1, 1, 1, generator=draw)
    light = 1 + 3 * torch.rand(count, 1, 1, 1, generator=draw)
    balls = ((axes[None] - places).square().sum(1).sqrt() < radii) * light
    return (balls + 0.1 * torch.randn(count, *PATCH, generator=draw))[:, None]


def train(regulariser, *, steps=60, every=15, lr=3e-3, width=16):
    """Joint embedding of two noisy views; returns the diagnoses, the first before any training."""
    encoder, monitor, fixed = encoder_of(), CollapseMonitor(), scans(12, seed=99)
    head = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, width))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=lr)
    diagnoses = [monitor.evaluate(encoder, fixed)]
    for step in range(steps):
        volumes = scans(8, seed=step)
        views = [volumes + 0.2 * torch.randn_like(volumes) for _ in range(2)]
        a, b = (head(encoder(view)[-1].amax(dim=(2, 3, 4))) for view in views)
        loss = (a - b).square().sum(1).mean() + regulariser(torch.cat([a, b]))
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            one, other = F.normalize(a, dim=1), F.normalize(b, dim=1)
            out = Step(
                loss=loss.detach(),
                energy=1 - (one * other).sum(1),
                negative_energy=1 - (one * other.roll(1, 0)).sum(1),
                embeddings=torch.cat([a, b]),
            )
        monitor.observe(out)
        optimizer.step()
        if (step + 1) % every == 0:
            diagnoses.append(monitor.evaluate(encoder, fixed))
    return diagnoses


def vicreg(z, covariance_weight=1.0):
    z = z - z.mean(0)
    covariance = z.T @ z / (len(z) - 1)
    off = covariance - torch.diag(covariance.diag())
    return (
        5 * F.relu(1 - (covariance.diag() + 1e-4).sqrt()).mean() + covariance_weight * off.square().sum() / z.shape[1]
    )


def test_monitor_names_complete_collapse_early():
    # Features are drawn to one point other than zero, as a bias and weight decay do in long trainings.
    diagnoses = train(lambda z: (z - 1).square().sum(1).mean())
    names = [diagnosis.verdict.name for diagnosis in diagnoses]
    assert names[0] == "first evaluation"
    assert "complete collapse" in names[1:4], names


def test_monitor_names_dimensional_collapse():
    one = torch.ones(16)

    def spread_along_one_direction(z):
        along = z @ one / 4
        return 5 * F.relu(4 - (along.var() + 1e-4).sqrt()) + (z - along[:, None] * one / 4).square().sum(1).mean()

    names = [diagnosis.verdict.name for diagnosis in train(spread_along_one_direction, steps=90, lr=1e-2)]
    assert "dimensional collapse" in names, names
    assert "complete collapse" not in names


def test_monitor_is_silent_for_healthy_training():
    """The energy gap opens and no alarm is raised."""
    diagnoses = train(vicreg)
    assert not [d.verdict for d in diagnoses if d.verdict.alarm]
    assert diagnoses[-1].metrics["diagnostics/energy_auc"] > 0.8
    assert diagnoses[-1].metrics["diagnostics/embedding_std"] > 4 * 0.05
    assert all(math.isfinite(value) for d in diagnoses for value in d.metrics.values())


@pytest.mark.parametrize(
    ("terms", "trivial", "name"),
    [
        ({"teacher_entropy_fraction": 0.999, "prototypes_used": 0.9}, math.log(64), "uniform teacher"),
        # with a masked term the trivial loss is twice ln K, and the teacher's share is none the less what it is
        ({"teacher_entropy_fraction": 0.999, "prototypes_used": 0.9}, 2 * math.log(64), "uniform teacher"),
        ({"teacher_entropy_fraction": 0.5, "prototypes_used": 0.01}, math.log(64), "one prototype"),
        ({"clusters_used": 0.01}, math.log(64), "one prototype"),
        ({"active_units": 0.0}, None, "posterior collapse"),
        ({"used_atoms": 0.0}, None, "dead dictionary"),
        ({"teacher_entropy_fraction": 0.3, "prototypes_used": 0.9}, math.log(4096), "healthy"),
        # of a combined task, the worst part counts
        ({"dino/prototypes_used": 0.9, "swav/prototypes_used": 0.02, "vae/active_units": 0.5}, None, "one prototype"),
    ],
)
def test_monitor_reads_terms_of_tasks(terms, trivial, name):
    encoder, monitor, images = encoder_of(), CollapseMonitor(), scans(6)
    step = Step(
        loss=torch.tensor(1.0),
        energy=torch.zeros(4),
        trivial_loss=trivial,
        terms={key: torch.tensor(value) for key, value in terms.items()},
    )
    monitor.evaluate(encoder, images, step)
    assert monitor.evaluate(encoder, images, step).verdict.name == name


def part(*, tells_apart, spread=1.0):
    draw = torch.Generator().manual_seed(0)
    energy = torch.rand(40, generator=draw)
    return Step(
        loss=torch.tensor(1.0),
        energy=energy,
        negative_energy=energy.roll(1) + (1.0 if tells_apart else 0.0),
        embeddings=torch.ones(40, 8) + spread * torch.randn(40, 8, generator=draw),
    )


def whole(**parts):
    """As combine has it: the energies are a sum, the embeddings those of the first part."""
    sum_of = {kind: sum(getattr(one, kind) for one in parts.values()) for kind in ("loss", "energy", "negative_energy")}
    return Step(**sum_of, embeddings=next(iter(parts.values())).embeddings, parts=parts)


def test_monitor_names_collapsed_part_after_restart():
    """A healthy sum of the parts does not hide the collapse of one."""
    encoder, monitor, images = encoder_of(), CollapseMonitor(), scans(6)
    sound = part(tells_apart=True)
    for _ in range(3):
        assert not monitor.evaluate(encoder, images, whole(first=sound, second=sound)).verdict.alarm
    monitor.observe(whole(first=sound, second=part(tells_apart=True, spread=1e-4)))
    after = CollapseMonitor()
    after.load_state_dict(monitor.state_dict())
    for one in (monitor, after):
        diagnosis = one.evaluate(encoder, images)
        assert str(diagnosis.verdict).startswith("complete collapse: in second, all features are becoming equal")
        assert diagnosis.verdict.evidence[0].metric == "second/embedding_std"
        assert diagnosis.metrics["diagnostics/embedding_std"] == diagnosis.metrics["diagnostics/second/embedding_std"]
    blind = part(tells_apart=False)
    looks = [monitor.evaluate(encoder, images, whole(first=sound, second=blind)) for _ in range(2)]
    assert looks[1].metrics["diagnostics/first/energy_auc"] > 0.9
    assert looks[1].metrics["diagnostics/energy_auc"] < 0.55
    assert str(looks[1].verdict).startswith("complete collapse: in second, the energy no longer tells pairs")


def test_monitor_leaves_encoder_and_random_state():
    encoder, images = encoder_of(), scans(5)
    encoder.train()
    encoder.bottleneck.eval()
    torch.manual_seed(3)
    before, weights = torch.get_rng_state(), {k: v.clone() for k, v in encoder.state_dict().items()}
    diagnosis = CollapseMonitor().evaluate(encoder, images, None)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[name], tensor) for name, tensor in encoder.state_dict().items())
    assert encoder.training
    assert not encoder.bottleneck.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert diagnosis.verdict.name == "first evaluation"


def test_features_do_not_depend_on_chunks(monkeypatch):
    encoder, images = encoder_of(), scans(7)
    one = extract_features(encoder, images)
    monkeypatch.setattr("medssl.diagnostics.features.CHUNK", 7)
    other = extract_features(encoder, images)
    torch.testing.assert_close(one.pooled, other.pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.dense, other.dense, rtol=1e-4, atol=1e-5)
    assert one.pooled.shape == (7, 16)
    assert one.dense.shape == (7 * 4**3, 16)
    with evaluating(encoder):
        torch.testing.assert_close(one.pooled[2], encoder(images[2:4])[-1].mean(dim=(2, 3, 4))[0].detach())


def test_monitor_resume_gives_same_verdict():
    encoder, images = encoder_of(), scans(6)
    draw = torch.Generator().manual_seed(1)

    def step(scale):
        z = 1 + scale * torch.randn(24, 8, generator=draw)
        return Step(torch.tensor(scale), torch.rand(24, generator=draw), torch.rand(24, generator=draw), embeddings=z)

    through = CollapseMonitor()
    through.evaluate(encoder, images, step(1.0))
    through.observe(step(0.5))
    file = io.BytesIO()
    torch.save(through.state_dict(), file)
    file.seek(0)
    resumed = CollapseMonitor()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    last = step(1e-4)
    expected, found = through.evaluate(encoder, images, last), resumed.evaluate(encoder, images, last)
    assert found.metrics == pytest.approx(expected.metrics)
    assert found.verdict == expected.verdict


def test_monitor_measures_lidar_and_alignment():
    encoder = encoder_of()
    volumes = scans(8)
    views = torch.stack([volumes, volumes + 0.01 * torch.randn_like(volumes)], 1).flatten(0, 1)
    metrics = CollapseMonitor(views_per_scan=2).evaluate(encoder, views, None).metrics
    assert 1 <= metrics["diagnostics/pooled_lidar"] <= 7
    assert metrics["diagnostics/pooled_alignment"] < 0.01


def test_rank_fraction_accounts_for_few_features():
    few = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    assert 0.9 < rank_fraction(few) <= 1.0
    assert rank_fraction(torch.ones(1, 4)) == 0.0


def test_samples_without_valid_voxels_are_not_pairs():
    energy, wrong = torch.tensor([0.1, 0.2, 0.0, 0.0]), torch.tensor([0.5, 0.6, 0.0, 0.0])
    step = Step(torch.tensor(1.0), energy, wrong, valid_fraction=torch.tensor([0.5, 1.0, 0.0, 0.0]))
    metrics = CollapseMonitor().evaluate(encoder_of(), scans(8), step).metrics
    assert metrics["diagnostics/energy_auc"] == 1.0
    assert metrics["diagnostics/energy_pairs"] == 2.0
