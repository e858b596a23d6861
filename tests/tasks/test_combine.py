import pytest
import torch
from small_world import SHAPE, SmallEncoder, SmallRegion, phantoms, trained

from medssl.errors import ConfigError, PluginError
from medssl.loading.crops import Crop
from medssl.pretext.task import automatic_settings
from medssl_tasks.combine import Combine, Part, PartOfRegion
from medssl_tasks.masked_volume import MaskedVolume
from medssl_tasks.rotation import Rotation

PARTS = ({"name": "masked-volume", "weight": 2.0, "options": {"block": 4}}, {"name": "rotation", "weight": 0.5})


def combined(**settings):
    torch.manual_seed(0)
    return Combine(SmallEncoder(), Combine.Config(tasks=PARTS, **settings))


def region(subject, batch=2):
    crops = {name: phantoms(batch, crop.size) for name, crop in subject.crops(SHAPE).items()}
    return SmallRegion(phantoms(batch), crops=crops)


def test_combined_loss_is_weighted_sum():
    """The loss is the weighted sum of the tasks own losses."""
    subject = combined(relative=False)
    views = subject.views(region(subject))
    step = subject(views)
    own = {name: subject.parts[name](sub(views, name)).loss.item() for name in ("masked-volume", "rotation")}
    assert step.loss.item() == pytest.approx(2.0 * own["masked-volume"] + 0.5 * own["rotation"], rel=1e-6)
    assert step.energy.shape == step.negative_energy.shape == (2,)
    assert step.terms["rotation/loss"].item() == pytest.approx(own["rotation"], rel=1e-6)


def sub(views, name):
    return {key.split("/", 1)[1]: view for key, view in views.items() if key.startswith(name + "/")}


def test_relative_losses_are_divided_by_trivial_loss():
    """Relative losses are divided by their fixed trivial value."""
    torch.manual_seed(0)
    parts = ({"name": "jigsaw", "weight": 3.0}, {"name": "rotation"})
    subject = Combine(SmallEncoder(), Combine.Config(tasks=parts))
    step = subject(subject.views(region(subject)))
    assert step.trivial_loss == pytest.approx(4.0)
    jigsaw, rotation = step.terms["jigsaw/loss"].item(), step.terms["rotation/loss"].item()
    assert step.loss.item() == pytest.approx(3.0 * jigsaw / 4.605170 + rotation / 3.178054, rel=1e-5)


def test_trivial_loss_of_batch_scales_like_fixed_one():
    """A trivial loss of the batch scales and counts as a fixed one does."""
    subject = combined()
    views = subject.views(region(subject))
    step = subject(views)
    own = step.terms["masked-volume/trivial_loss"]
    assert step.trivial_loss is None
    assert step.terms["trivial_loss"].item() == pytest.approx(2.5)
    masked, rotation = step.terms["masked-volume/loss"] / own, step.terms["rotation/loss"] / 3.178054
    assert step.loss.item() == pytest.approx(2.0 * masked.item() + 0.5 * rotation.item(), rel=1e-5)
    air = dict(views, **{"masked-volume/target": 0.001 * views["masked-volume/target"]})
    assert subject(air).terms["masked-volume/trivial_loss"].item() < 1e-5
    assert subject(air).loss.item() < 100.0


def test_requests_to_host_are_passed_on():
    """What tasks ask of the host is handed on."""
    torch.manual_seed(0)
    subject = Combine(SmallEncoder(), Combine.Config(tasks=({"name": "masked-volume"}, {"name": "simsiam"})))
    masked, simsiam = subject.parts.values()
    assert list(subject.unscheduled_modules()) == list(simsiam.unscheduled_modules()) == [simsiam.predict]
    said = subject.automatic(SHAPE, 100)
    assert said == automatic_settings(subject, patch=SHAPE, steps=100)
    value, _, rule = said["masked-volume.block"].partition(": ")
    assert value == str(masked.automatic(SHAPE, 100)["block"])
    assert len(rule) > 10


def test_parts_are_detached_steps():
    """Each task hands over its own step without a graph."""
    subject = combined()
    step = subject(subject.views(region(subject)))
    assert list(step.parts) == ["masked-volume", "rotation"]
    assert step.parts["rotation"].loss.item() == step.terms["rotation/loss"].item()
    assert not any(part.loss.requires_grad for part in step.parts.values())
    assert step.parts["rotation"].embeddings is not step.parts["masked-volume"].embeddings


def test_names_are_prefixed_by_task():
    """Crops anchors views terms and pictures are distinguished by the tasks name."""
    subject = combined()
    subject.parts["rotation"].crops = lambda patch: {"a": Crop(patch), "b": Crop(patch, anchor="a", max_offset=0.1)}
    crops = subject.crops(SHAPE)
    assert list(crops) == ["masked-volume/patch", "rotation/a", "rotation/b"]
    assert crops["rotation/b"].anchor == "rotation/a"


def test_part_is_independent_of_other_parts():
    """A task sees its own crops and draws its own numbers whatever stands beside it."""
    subject = combined()
    whole = region(subject)
    one, other = PartOfRegion(whole, "masked-volume"), PartOfRegion(whole, "rotation")
    assert torch.equal(one.crop("patch"), whole.crop("masked-volume/patch"))
    assert not torch.equal(one.random.uniform("x", 0.0, 1.0), other.random.uniform("x", 0.0, 1.0))
    assert torch.equal(
        one.random.uniform("x", 0.0, 1.0), PartOfRegion(whole, "masked-volume").random.uniform("x", 0.0, 1.0)
    )


def test_tasks_share_encoder_and_first_decoder_is_exported():
    """All tasks train one encoder and the first decoder is exported."""
    subject = combined()
    assert all(part.encoder is subject.encoder for part in subject.parts.values())
    assert subject.exported_encoder() is subject.encoder
    assert subject.exported_decoder() is subject.parts["masked-volume"].decoder


def test_after_step_reaches_every_task():
    subject, heard = combined(), []
    for name, part in subject.parts.items():
        part.after_step = lambda step, total, name=name: heard.append((name, step, total))
    subject.after_step(3, 10)
    assert heard == [("masked-volume", 3, 10), ("rotation", 3, 10)]


def test_thirty_steps_reduce_both_losses():
    subject = combined()
    views = subject.views(region(subject))
    before = subject(views).terms
    trained(subject, views, 30)
    after = subject(views).terms
    assert all(after[name] < 0.7 * before[name] for name in ("masked-volume/loss", "rotation/loss"))


def test_resumed_training_equals_uninterrupted():
    """Going on from the saved state equals not stopping."""
    first, second = combined(), combined()
    views = first.views(region(first))
    trained(first, views, 2)
    second.load_state_dict(first.state_dict())
    assert trained(first, views, 2) == trained(second, views, 2)


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ([{"name": "rotation"}, {"name": "rotation"}], ConfigError, "Name each task once"),
        ([{"name": "rotation"}, {"name": "combine"}], ConfigError, "not 'combine' itself"),
        ([{"name": "rotation"}, {"name": "rotaton"}], PluginError, "Did you mean 'rotation'"),
        ([{"name": "rotation"}, {"name": "jigsaw", "options": {"gapp": 1}}], ConfigError, "gap"),
    ],
)
def test_invalid_combinations_are_refused(parts, error, words):
    """Tasks that cannot be combined are refused in words."""
    with pytest.raises(error, match=words):
        Combine(SmallEncoder(), Combine.Config(tasks=parts))


def test_parts_come_from_plugins():
    """The parts are the tasks that the plugins provide."""
    subject = combined()
    assert isinstance(subject.parts["masked-volume"], MaskedVolume)
    assert isinstance(subject.parts["rotation"], Rotation)
    assert Part(name="rotation").weight == 1.0
