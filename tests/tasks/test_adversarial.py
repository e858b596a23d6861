import math

import pytest
import torch
from small_world import SmallEncoder, SmallRegion, phantoms

from medssl_tasks.adversarial import TRIVIAL, Adversarial, critic_loss, frozen


def task(**settings):
    torch.manual_seed(0)
    return Adversarial(SmallEncoder(), Adversarial.Config(width=4, **settings))


def test_critic_loss_of_zero_scores():
    """A critic without an opinion pays two logarithms of two."""
    scored = torch.ones(2, 1, 3, 4, 5, dtype=torch.bool)
    zero = torch.zeros(2, 1, 3, 4, 5, dtype=torch.float64)
    assert critic_loss(zero, zero, scored).tolist() == pytest.approx([2 * math.log(2)] * 2)
    assert pytest.approx(2 * math.log(2)) == TRIVIAL


def test_critic_loss_of_confident_scores():
    """A critic pays nothing when sure and right and the score when sure and wrong."""
    scored = torch.ones(1, 1, 2, 2, 2, dtype=torch.bool)
    far = torch.full((1, 1, 2, 2, 2), 50.0, dtype=torch.float64)
    assert critic_loss(-far, far, scored).item() == pytest.approx(0.0, abs=1e-12)
    assert critic_loss(far, -far, scored).item() == pytest.approx(100.0)


def test_critic_loss_passes_gradcheck():
    """The gradient of the critics loss is right in double precision."""
    scored = torch.rand(2, 1, 2, 3, 2) > 0.4
    scores = [torch.randn(2, 1, 2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: critic_loss(a, b, scored), scores)


def test_generator_loss_does_not_train_critic():
    """The critic learns from its own loss and not from the generators."""
    with_fooling, without = task(adversarial_weight=10.0), task(adversarial_weight=0.0)
    views = without.views(SmallRegion(phantoms()))
    for subject in (with_fooling, without):
        subject(views).loss.backward()
    for part in ("encoder", "decoder"):
        pairs = zip(getattr(with_fooling, part).parameters(), getattr(without, part).parameters(), strict=True)
        assert all(torch.equal(a.grad, b.grad) for a, b in pairs)
    pairs = zip(with_fooling.generator.parameters(), without.generator.parameters(), strict=True)
    assert not any(torch.equal(a.grad, b.grad) for a, b in pairs)


def test_loss_value_is_critics_alone():
    """The value of the loss is the critics alone."""
    subject = task(score_penalty=0.0)
    step = subject(subject.views(SmallRegion(phantoms())))
    assert step.loss.item() == pytest.approx(step.terms["critic"].item(), rel=1e-6)
    assert step.trivial_loss == TRIVIAL


def test_only_hidden_blocks_are_generated():
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    generated = subject(views).pictures["generated"]
    assert torch.equal(generated[~views["hidden"]], views["real"][~views["hidden"]])
    assert not torch.equal(generated[views["hidden"]], views["real"][views["hidden"]])


def test_energies_are_scores_of_real_and_generated():
    """The energy is the score of the scan and the negative energy that of the generated patch."""
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    step = subject(views)
    score = subject.decoder(subject.encoder(views["real"]), views["real"])
    expected = [score[b][views["scored"][b]].mean().item() for b in range(2)]
    assert step.energy.tolist() == pytest.approx(expected, rel=1e-4)
    assert not torch.equal(step.energy, step.negative_energy)


def test_frozen_restores_gradients_after_failure():
    """A frozen part learns again afterwards also after a failure."""
    subject = task()
    subject.encoder.levels[0][0].bias.requires_grad_(False)
    with frozen(subject.encoder):
        assert not any(weight.requires_grad for weight in subject.encoder.parameters())
    assert sum(not weight.requires_grad for weight in subject.encoder.parameters()) == 1
    with pytest.raises(ZeroDivisionError), frozen(subject.encoder):
        raise ZeroDivisionError
    assert sum(not weight.requires_grad for weight in subject.encoder.parameters()) == 1


def test_critics_decoder_is_exported():
    subject = task()
    assert subject.exported_decoder() is subject.decoder
