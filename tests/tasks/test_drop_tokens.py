"""Tasks that hide parts of a patch, over an encoder that leaves hidden tokens out."""

import pytest
import torch
from small_world import SmallEncoder, SmallRegion, phantoms, trained

from medssl.encoders.build import build_encoder, describe
from medssl.pretext.hidden_blocks import block_edges
from medssl_tasks.jepa import JEPA
from medssl_tasks.masked_volume import MaskedVolume

SHAPE = (16, 24, 32)
TOKENS = 4 * 6 * 8


def vit():
    sizes = {"hidden_size": 24, "mlp_dim": 48, "num_heads": 2, "num_layers": 4, "feature_size": 4, "patch_size": 4}
    torch.manual_seed(0)
    return build_encoder(describe("vit", preset="tiny", options=sizes, patch=SHAPE))


def watched(task):
    """Shapes of the tokens that reach the first block, as the task runs."""
    seen = []
    task.encoder.vit.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    return seen


def masked(**settings):
    return MaskedVolume(vit(), MaskedVolume.Config(masking="drop-tokens", mask_ratio=0.75, **settings))


def test_masked_volume_computes_visible_tokens_only():
    """Masked volume shows the blocks of the vit the visible quarter alone."""
    task = masked()
    seen = watched(task)
    views = task.views(SmallRegion(phantoms(shape=SHAPE)))
    assert block_edges("auto", views["target"].shape[2:], step=task.step) == (4, 4, 4)
    step = task(views)
    step.loss.backward()
    assert seen == [(2, TOKENS // 4, 24)]
    assert all(weight.grad is not None for weight in task.parameters() if weight.requires_grad)


def test_masked_volume_learns_with_dropped_tokens():
    task = masked()
    views = task.views(SmallRegion(phantoms(shape=SHAPE)))
    losses = trained(task, views, 40)
    assert losses[-1] < 0.6 * float(task(views).terms["trivial_loss"])


def test_prediction_does_not_depend_on_hidden_voxels():
    """The prediction does not depend on what is hidden."""
    task = masked()
    views = task.views(SmallRegion(phantoms(shape=SHAPE)))
    other = dict(views, target=torch.where(views["hidden"], views["target"] + 5.0, views["target"]))
    assert torch.equal(task(views).embeddings, task(other).embeddings)


def test_jepa_drops_hidden_tokens_for_student_only():
    """Jepa leaves out what it predicts and its teacher sees everything."""
    task = JEPA(vit(), JEPA.Config(width=16, depth=1))
    seen = watched(task)
    whole = []
    task.teacher.module.vit.blocks[0].register_forward_pre_hook(lambda _, inputs: whole.append(tuple(inputs[0].shape)))
    views = task.views(SmallRegion(phantoms(shape=SHAPE)))
    task(views).loss.backward()
    visible = (~views["hidden"][:, 0, ::4, ::4, ::4]).sum(dim=(1, 2, 3))
    assert seen == [(2, int(visible.max()), 24)]
    assert int(visible.max()) < 0.75 * TOKENS
    assert whole == [(2, TOKENS, 24)]
    assert all(weight.grad is not None for weight in task.parameters() if weight.requires_grad)


def test_jepa_energy_ignores_masks_of_other_samples():
    """A sample of jepa costs the same whatever the others hide."""
    task = JEPA(vit().double(), JEPA.Config(width=16, depth=1)).double()
    views = task.views(SmallRegion(phantoms(3, SHAPE).double()))
    hidden = views["hidden"].clone()
    hidden[1] = False
    hidden[1, :, :4, :4, :4] = True
    alone = task({"patch": views["patch"], "hidden": hidden}).energy
    assert float(alone[0]) == pytest.approx(float(task(views).energy[0]), rel=1e-9)


def test_jepa_over_convolutions_sees_mean_where_hidden():
    """Jepa over convolutions still sees the mean where something is hidden."""
    task = JEPA(SmallEncoder(), JEPA.Config(width=16, depth=1))
    seen = []
    task.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    views = task.views(SmallRegion(phantoms()))
    task(views)
    assert torch.equal(seen[0], views["patch"].masked_fill(views["hidden"], 0.0))
