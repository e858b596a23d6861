import math

import pytest
import torch
from small_world import SmallEncoder, SmallRegion, phantoms

from medssl_tasks.adversarial import TRIVIAL, Adversarial, critic_loss, frozen


def task(**settings):
    torch.manual_seed(0)
    return Adversarial(SmallEncoder(), Adversarial.Config(width=4, **settings))


def test_a_critic_without_an_opinion_pays_two_logarithms_of_two():
    scored = torch.ones(2, 1, 3, 4, 5, dtype=torch.bool)
    zero = torch.zeros(2, 1, 3, 4, 5, dtype=torch.float64)
    assert critic_loss(zero, zero, scored).tolist() == pytest.approx([2 * math.log(2)] * 2)
    assert pytest.approx(2 * math.log(2)) == TRIVIAL


def test_a_critic_pays_nothing_when_sure_and_right_and_the_score_when_sure_and_wrong():
    scored = torch.ones(1, 1, 2, 2, 2, dtype=torch.bool)
    far = torch.full((1, 1, 2, 2, 2), 50.0, dtype=torch.float64)
    assert critic_loss(-far, far, scored).item() == pytest.approx(0.0, abs=1e-12)
    assert critic_loss(far, -far, scored).item() == pytest.approx(100.0)


def test_the_gradient_of_the_critics_loss_is_right_in_double_precision():
    scored = torch.rand(2, 1, 2, 3, 2) > 0.4
    scores = [torch.randn(2, 1, 2, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: critic_loss(a, b, scored), scores)


def test_the_critic_learns_from_its_own_loss_and_not_from_the_generators():
    with_fooling, without = task(adversarial_weight=10.0), task(adversarial_weight=0.0)
    views = without.views(SmallRegion(phantoms()))
    for subject in (with_fooling, without):
        subject(views).loss.backward()
    for part in ("encoder", "decoder"):
        pairs = zip(getattr(with_fooling, part).parameters(), getattr(without, part).parameters(), strict=True)
        assert all(torch.equal(a.grad, b.grad) for a, b in pairs)
    pairs = zip(with_fooling.generator.parameters(), without.generator.parameters(), strict=True)
    assert not any(torch.equal(a.grad, b.grad) for a, b in pairs)


def test_the_value_of_the_loss_is_the_critics_alone():
    subject = task(score_penalty=0.0)
    step = subject(subject.views(SmallRegion(phantoms())))
    assert step.loss.item() == pytest.approx(step.terms["critic"].item(), rel=1e-6)
    assert step.trivial_loss == TRIVIAL


def test_only_hidden_blocks_are_forged():
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    generated = subject(views).pictures["generated"]
    assert torch.equal(generated[~views["hidden"]], views["real"][~views["hidden"]])
    assert not torch.equal(generated[views["hidden"]], views["real"][views["hidden"]])


def test_the_energy_is_the_score_of_the_scan_and_the_negative_energy_that_of_the_forgery():
    subject = task()
    views = subject.views(SmallRegion(phantoms()))
    step = subject(views)
    score = subject.decoder(subject.encoder(views["real"]), views["real"])
    expected = [score[b][views["scored"][b]].mean().item() for b in range(2)]
    assert step.energy.tolist() == pytest.approx(expected, rel=1e-4)
    assert not torch.equal(step.energy, step.negative_energy)


def test_a_frozen_part_learns_again_afterwards_also_after_a_failure():
    subject = task()
    subject.encoder.levels[0][0].bias.requires_grad_(False)
    with frozen(subject.encoder):
        assert not any(weight.requires_grad for weight in subject.encoder.parameters())
    assert sum(not weight.requires_grad for weight in subject.encoder.parameters()) == 1
    with pytest.raises(ZeroDivisionError), frozen(subject.encoder):
        raise ZeroDivisionError
    assert sum(not weight.requires_grad for weight in subject.encoder.parameters()) == 1


def test_the_critics_decoder_is_handed_over():
    subject = task()
    assert subject.exported_decoder() is subject.decoder
