"""Weights on disk: what is written is what is read, and nothing else is taken for it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from medssl.encoders.build import build_encoder, describe
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.weights import (
    encoder_record,
    load_encoder,
    load_network,
    read_description,
    save_encoder,
    save_network,
)
from medssl.errors import CheckpointError

PATCH = (16, 24, 32)
FACTS = {"task": "masked-volume", "steps": 12, "data": "ab12"}


def encoder_of(filters=(4, 6, 8), seed=0):
    torch.manual_seed(seed)
    return build_encoder(describe("dynunet", preset="tiny", options={"filters": filters}, patch=PATCH))


@pytest.fixture
def saved(tmp_path):
    encoder = encoder_of()
    decoder = encoder.make_decoder(2)
    save_encoder(tmp_path, encoder, decoder, metadata=FACTS)
    return tmp_path, encoder, decoder


def equal(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_load_encoder_returns_the_same_bits(saved):
    folder, encoder, decoder = saved
    loaded, rest = load_encoder(folder)
    assert equal(encoder, loaded)
    assert equal(decoder, rest)
    assert loaded.description == encoder.description
    assert encoder_record(folder).metadata == FACTS
    assert read_description(folder) == encoder.description
    assert list(load_file(folder / "encoder.safetensors")) == sorted(encoder.state_dict())
    assert sorted(path.name for path in folder.iterdir()) == [
        "decoder.safetensors",
        "encoder.json",
        "encoder.safetensors",
    ]


@pytest.mark.parametrize(("name", "patch"), [("segresnet", (16, 16, 16)), ("swin-unetr", (32, 64, 32))])
def test_load_encoder_returns_buffers_of_every_encoder(tmp_path, name, patch):
    encoder = build_encoder(describe(name, preset="tiny", patch=patch))
    save_encoder(tmp_path, encoder, metadata={})
    loaded, decoder = load_encoder(tmp_path)
    assert decoder is None
    image = torch.randn(2, 1, *patch)
    with torch.no_grad():
        for ours, theirs in zip(encoder.eval()(image), loaded.eval()(image), strict=True):
            assert torch.equal(ours, theirs)


class Compiled(torch.nn.Module):
    """Names its content as torch.compile does."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module


def test_save_encoder_ignores_memory_format_and_compilation(tmp_path):
    encoder = encoder_of()
    expected = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.to(memory_format=torch.channels_last_3d)
    encoder.bottleneck = Compiled(encoder.bottleneck)
    assert any("_orig_mod" in name for name in encoder.state_dict())
    save_encoder(tmp_path, encoder, metadata={})
    loaded, _ = load_encoder(tmp_path)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in expected.items())


def test_save_encoder_removes_old_decoder(saved):
    folder, _, _ = saved
    save_encoder(folder, encoder_of(seed=1), metadata={})
    assert load_encoder(folder)[1] is None
    assert not (folder / "decoder.safetensors").exists()


def test_load_network_returns_weights_and_metadata(tmp_path):
    encoder = encoder_of()
    network = SegmentationNetwork(encoder, encoder.make_decoder(3))
    names = {1: "anterior", 2: "posterior"}
    policy = {"spacing_mm": [1.0, 1.0, 1.0]}
    facts = {"label_names": names, "patch": list(PATCH), "overlap": 0.25, "store_policy": policy, "cohort_digest": "ab"}
    save_network(tmp_path, network, metadata=facts)
    loaded, back = load_network(tmp_path)
    assert equal(network, loaded)
    assert (back.label_names, back.patch, back.overlap, back.store_policy) == (names, PATCH, 0.25, policy)
    assert back.model_extra == {"cohort_digest": "ab"}
    assert loaded.encoder.divisor == (4, 4, 4)


def test_save_encoder_refuses_weights_that_are_not_finite(tmp_path):
    encoder = encoder_of()
    with torch.no_grad():
        encoder.bottleneck.conv1.conv.weight[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(
        CheckpointError, match=r"NaN or infinite weights in 1 of 18 tensors \(first: bottleneck.conv1.conv.weight\)"
    ):
        save_encoder(tmp_path, encoder, metadata={})
    assert not list(tmp_path.iterdir())


def test_load_encoder_names_folder_without_encoder(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no encoder.json in .*Give the folder of a finished run"):
        load_encoder(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no model.json"):
        load_network(tmp_path)


def test_load_encoder_names_missing_weights(saved):
    folder, _, _ = saved
    (folder / "encoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no encoder.safetensors in .*copy the weights beside it"):
        load_encoder(folder)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_load_encoder_refuses_truncated_file(saved, keep):
    folder, _, _ = saved
    path = folder / "encoder.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        load_encoder(folder)


def test_load_encoder_notices_changed_byte(saved):
    folder, _, _ = saved
    path = folder / "encoder.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"is not the one that its JSON file describes"):
        load_encoder(folder)


def test_load_encoder_notices_weights_of_another_run(saved):
    folder, _, _ = saved
    save_file(encoder_of(seed=1).state_dict(), folder / "encoder.safetensors")
    with pytest.raises(CheckpointError, match="come from different runs"):
        load_encoder(folder)


def test_load_encoder_refuses_another_architecture(saved, tmp_path_factory):
    folder, _, _ = saved
    wider = tmp_path_factory.mktemp("wider")
    save_encoder(wider, encoder_of(filters=(4, 6, 10)), metadata={})
    (folder / "encoder.safetensors").write_bytes((wider / "encoder.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="disagree about"):
        load_encoder(folder)
    edit(folder, lambda record: record["description"]["options"].update(filters=[4, 6, 10]))
    with pytest.raises(CheckpointError, match="weights are of another architecture"):
        load_encoder(folder)


def edit(folder, change):
    path = folder / "encoder.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_load_encoder_refuses_enormous_network_unallocated(saved):
    folder, _, _ = saved
    edit(folder, lambda record: record["description"]["options"].update(filters=[4096, 4096, 4096]))  # 12 GB of weights
    with pytest.raises(CheckpointError, match="another architecture"):
        load_encoder(folder)
    edit(folder, lambda record: record["description"]["options"].update(filters=[10**12, 1, 1]))
    with pytest.raises(CheckpointError, match="cannot be built"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{}", "is not what medssl writes"),
        (b"[]", "is not what medssl writes"),
        (b"{'a': 1}", "is not readable as JSON"),
        (b"\xff\xfe\x00", "is not readable as JSON"),
        (b"[" * 100_000, "is not readable as JSON"),
        (b'{"format": "medssl-image-1"}', "format: input should be 'medssl-encoder-2'"),
    ],
)
def test_load_encoder_refuses_foreign_record(saved, content, sentence):
    folder, _, _ = saved
    (folder / "encoder.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        load_encoder(folder)


def test_load_encoder_refuses_pickle_unopened(saved):
    folder, encoder, _ = saved
    torch.save(encoder.state_dict(), folder / "encoder.safetensors")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_encoder(folder)


def test_save_encoder_explains_unwritable_folder(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors cannot be written: .*choose another folder"):
        save_encoder(blocked, encoder_of(), metadata={})
