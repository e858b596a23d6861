"""The optimiser's groups and the learning-rate schedule."""

import math

import pytest
from torch import nn

from medssl.config import OptimConfig
from medssl.training.optimizer import lr_at_step, make_optimizer, set_lr


def test_make_optimizer_does_not_decay_norms_and_biases():
    module = nn.Sequential(nn.Conv3d(1, 4, 3), nn.InstanceNorm3d(4, affine=True))
    optimizer = make_optimizer([(module, 1.0)], OptimConfig(weight_decay=0.1))
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    assert [p.ndim for p in decayed] == [5]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_set_lr_scales_each_module_once():
    encoder, head = nn.Linear(2, 2), nn.Linear(2, 2)
    whole = nn.Sequential(encoder, head)
    optimizer = make_optimizer([(encoder, 0.1), (whole, 1.0)], OptimConfig(lr=1e-2))
    set_lr(optimizer, 5e-3)
    by_param = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert by_param[id(encoder.weight)] == pytest.approx(5e-4)
    assert by_param[id(head.weight)] == pytest.approx(5e-3)
    assert len(by_param) == 4


class WithASteadyHead(nn.Sequential):
    def unscheduled_modules(self):
        return [self[1]]


def test_set_lr_skips_unscheduled_modules():
    whole = WithASteadyHead(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = make_optimizer([(whole, 1.0)], OptimConfig(lr=1e-2))
    set_lr(optimizer, 5e-5)
    by_param = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert by_param[id(whole[0].weight)] == pytest.approx(5e-5)
    assert by_param[id(whole[1].weight)] == by_param[id(whole[1].bias)] == pytest.approx(1e-2)
    assert len(by_param) == 4


def test_lr_at_step_warms_up_then_follows_cosine():
    settings = OptimConfig(lr=1.0, warmup_fraction=0.1, min_lr_ratio=0.0)
    rates = [lr_at_step(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5, abs=1e-12)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_lr_at_step_ends_at_min_lr_ratio():
    settings = OptimConfig(lr=2.0, warmup_fraction=0.0, min_lr_ratio=0.25)
    assert lr_at_step(10**6 - 1, 10**6, settings) == pytest.approx(0.5, abs=1e-5)
