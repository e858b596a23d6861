from math import log

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms

from medssl.encoders.build import build_encoder, describe
from medssl.encoders.encoder import EncoderDescription
from medssl.errors import ConfigError
from medssl_tasks.rotation import TURNS_OF_A_CUBE, Rotation, inverse, turned, turns_about

ASYMMETRIC = torch.arange(27.0).view(1, 3, 3, 3)


def task(encoder=None, **settings):
    torch.manual_seed(0)
    return Rotation(encoder or SmallEncoder(), Rotation.Config(**settings))


def flat_encoder():
    encoder = SmallEncoder()
    encoder.strides = ((1, 1, 1), (1, 2, 2), (2, 4, 4))
    return encoder


def matrix(turn):
    axes, mirrored = turn
    out = np.zeros((3, 3))
    for i in range(3):
        out[i, axes[i]] = -1 if mirrored[i] else 1
    return out


def test_cube_has_24_distinct_turns():
    """A cube has twenty four turns that look different and the first is none."""
    looks = {tuple(turned(ASYMMETRIC, turn).flatten().tolist()) for turn in TURNS_OF_A_CUBE}
    assert len(looks) == 24
    assert torch.equal(turned(ASYMMETRIC, TURNS_OF_A_CUBE[0]), ASYMMETRIC)


def test_turns_form_rotation_group():
    assert all(np.linalg.det(matrix(turn)) == pytest.approx(1.0) for turn in TURNS_OF_A_CUBE)
    looks = {tuple(turned(ASYMMETRIC, turn).flatten().tolist()) for turn in TURNS_OF_A_CUBE}
    for first in TURNS_OF_A_CUBE:
        for second in TURNS_OF_A_CUBE:
            assert tuple(turned(turned(ASYMMETRIC, first), second).flatten().tolist()) in looks


def test_inverse_undoes_turn():
    for turn in TURNS_OF_A_CUBE:
        assert torch.equal(turned(turned(ASYMMETRIC, turn), inverse(turn)), ASYMMETRIC)


def test_in_plane_turns_match_torch_rot90():
    """The turns in the plane are those of torch and leave the slices where they are."""
    expected = {tuple(torch.rot90(ASYMMETRIC, k, (2, 3)).flatten().tolist()) for k in range(4)}
    assert {tuple(turned(ASYMMETRIC, turn).flatten().tolist()) for turn in turns_about(0)} == expected


def test_thick_slices_allow_in_plane_turns_only():
    """Thick slices leave only the turns in their plane."""
    assert task().turns == TURNS_OF_A_CUBE
    assert task(flat_encoder()).turns == turns_about(0)
    assert task(flat_encoder(), group="cube").turns == TURNS_OF_A_CUBE
    assert task(group="in-plane").head.layers[-1].out_features == 4


def spaced(*spacing_mm):
    encoder = SmallEncoder()
    encoder.description = EncoderDescription(name="small", spacing_mm=spacing_mm)
    return encoder


def test_spacing_decides_group_before_strides():
    """The shape of a voxel decides whatever the strides of the encoder."""
    assert task(spaced(1.5, 1.0, 1.0)).turns == TURNS_OF_A_CUBE
    assert task(spaced(5.0, 1.0, 1.0)).turns == turns_about(0)
    assert task(spaced(5.0, 1.0, 1.0), group="in-plane").turns == turns_about(0)
    with pytest.raises(ConfigError, match=r"voxels are \[5.0, 1.0, 1.0\] mm .* Use --set task.group=in-plane"):
        task(spaced(5.0, 1.0, 1.0), group="cube")
    with pytest.raises(ConfigError, match="no two edges alike"):
        task(spaced(5.0, 2.0, 0.9))


def test_sagittal_slices_turn_in_their_plane():
    subject = task(spaced(1.0, 1.0, 4.0))
    expected = {tuple(torch.rot90(ASYMMETRIC, k, (1, 2)).flatten().tolist()) for k in range(4)}
    assert {tuple(turned(ASYMMETRIC, turn).flatten().tolist()) for turn in subject.turns} == expected
    assert subject.crops((16, 20, 10))["patch"].size == (16, 16, 10)
    views = subject.views(SmallRegion(phantoms(2, (8, 8, 4))))
    assert subject(views).loss.isfinite()


@pytest.mark.parametrize("name", ["dynunet", "segresnet", "swin-unetr", "vit"])
def test_encoders_keep_planned_spacing(name):
    """Every encoder hands on the spacing it was planned for."""
    description = describe(name, preset="tiny", patch=(32, 64, 64), spacing_mm=(5.0, 1.0, 1.0))
    assert task(build_encoder(description)).turns == turns_about(0)


def test_crop_has_equal_edges_of_exchanged_axes():
    """The patch has equal edges where axes change places."""
    assert task().crops((16, 20, 24))["patch"].size == (16, 16, 16)
    assert task(flat_encoder()).crops((14, 22, 24))["patch"].size == (14, 20, 20)


def test_turned_copies_are_distinct_and_match_answer():
    """The copies of a patch are turned differently and as the answer says."""
    subject = task(rotations_per_patch=24)
    views = subject.views(SmallRegion(phantoms(2, (8, 8, 8))))
    for b in range(2):
        assert sorted(views["turn"][b].tolist()) == list(range(24))
        for copy in range(24):
            expected = turned(views["upright"][b], TURNS_OF_A_CUBE[int(views["turn"][b, copy])])
            assert torch.equal(views["turned"][b, copy], expected)


def test_uniform_prediction_costs_log_of_turns():
    """Guessing costs the logarithm of the number of turns."""
    for subject, count in ((task(), 24), (task(group="in-plane"), 4)):
        for weight in subject.head.parameters():
            torch.nn.init.zeros_(weight)
        step = subject(subject.views(SmallRegion(phantoms(2, (8, 8, 8)))))
        assert step.trivial_loss == pytest.approx(log(count))
        assert step.loss.item() == pytest.approx(log(count), rel=1e-6)
        assert step.negative_energy.tolist() == pytest.approx([log(count)] * 2, rel=1e-6)


def test_correct_prediction_is_shown_upright():
    subject = task(rotations_per_patch=1).eval()
    views = subject.views(SmallRegion(phantoms(2, (8, 8, 8))))
    answers = torch.nn.functional.one_hot(views["turn"].flatten(), 24).float()
    subject.head.forward = lambda pyramid: answers
    assert torch.equal(subject(views).pictures["prediction"], views["upright"])


def test_too_many_rotations_and_mirroring_are_refused():
    """More copies than turns and any mirroring are refused."""
    with pytest.raises(ConfigError, match="there are 4 turns"):
        task(group="in-plane", rotations_per_patch=5)
    with pytest.raises(ValidationError, match="mirroring W"):
        Rotation.Config(geometry={"flip": (0.0, 0.0, 0.5)})
    assert task().crops(SHAPE)["patch"].flip == (0.0, 0.0, 0.0)
