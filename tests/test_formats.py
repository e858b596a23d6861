"""Every format on disk has a number and the medssl that wrote it; any other than that of today is refused."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import blosc2
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stored_scans import noise, store_scan
from typer.testing import CliRunner

from medssl.archive.index.database import open_index, read_index
from medssl.cohort import Cohort
from medssl.cohort.cohort import CohortDescription, write_description
from medssl.cohort.manifest import read_manifest, write_manifest
from medssl.downstream.comparison import Comparison
from medssl.downstream.dice import Evaluation, read_evaluation
from medssl.encoders.build import build_encoder, describe
from medssl.encoders.segmentation_network import SegmentationNetwork
from medssl.encoders.weights import load_encoder, load_network, save_encoder, save_network
from medssl.errors import MedsslError
from medssl.runs.run import Run
from medssl.store.volumes import open_volume
from medssl.training.checkpoint import read_checkpoint, save_checkpoint
from medssl_cli.main import app

Change = Callable[[dict[str, Any]], None]


def change_json(path: Path, change: Change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_manifest(path: Path, change: Change) -> None:
    table = pq.read_table(path)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    metadata["format"] = metadata.pop("medssl_schema")
    change(metadata)
    if "format" in metadata:
        metadata["medssl_schema"] = str(metadata.pop("format"))
    pq.write_table(table.replace_schema_metadata(metadata), path)


def change_index(path: Path, change: Change) -> None:
    with closing(sqlite3.connect(path)) as index, index:
        values = dict(index.execute("SELECT name, value FROM metadata"))
        change(values)
        index.execute("DELETE FROM metadata")
        index.executemany("INSERT INTO metadata VALUES (?, ?)", values.items())


def change_packed(path: Path, change: Change) -> None:
    array = blosc2.open(str(path), mode="a")
    metadata = array.schunk.vlmeta
    content = json.loads(metadata["facts"])
    change(content)
    metadata["facts"] = json.dumps(content)


def change_flat(path: Path, change: Change) -> None:
    with safe_open(path, "pt") as file:
        ((name, text),) = file.metadata().items()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- the file has keys, but cannot be iterated
    about = json.loads(text)
    content = json.loads(about["facts"])
    change(content)
    save_file(tensors, path, metadata={name: json.dumps(about | {"facts": json.dumps(content)})})


def change_checkpoint(path: Path, change: Change) -> None:
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def write_cohort(folder: Path) -> None:
    write_description(folder, CohortDescription("key", 0, (0.8, 0.1, 0.1), {}, {}, {0: "background"}))
    write_manifest(folder / "manifest.parquet", [])


def write_index(folder: Path) -> None:
    with open_index(folder):
        pass


def open_and_read_index(folder: Path) -> None:
    with read_index(folder):
        pass


def write_checkpoint(folder: Path) -> None:
    module = torch.nn.Linear(1, 1)
    save_checkpoint(folder / "last.ckpt", module=module, optimizer=torch.optim.SGD(module.parameters()), step=3)


def small_network() -> SegmentationNetwork:
    description = describe("dynunet", preset="tiny", options={"filters": (4, 6, 8)}, patch=(16, 16, 16))
    encoder = build_encoder(description)
    return SegmentationNetwork(encoder, encoder.make_decoder(2))


@dataclass(frozen=True)
class Format:
    """One format on disk.

    Attributes:
        name: Of its file.
        write: Writes a file of this format into a folder.
        change: Changes the file's metadata.
        read: Reads the file in a folder.
        number: The format of today.
        remedy: What the refusal says to do.
        prefix: What stands before the number.
        writer: Path of keys to the medssl that wrote it.
    """

    name: str
    write: Callable[[Path], Any]
    change: Callable[[Path, Change], None]
    read: Callable[[Path], Any]
    number: int
    remedy: str
    prefix: str = ""
    writer: tuple[str, ...] = ("medssl",)

    def __str__(self) -> str:
        return self.name


FORMATS = (
    Format("cohort.json", write_cohort, change_json, Cohort.open, 1, "ingest into a new folder"),
    Format(
        "manifest.parquet",
        write_cohort,
        change_manifest,
        lambda folder: read_manifest(folder / "manifest.parquet"),
        2,
        "ingest into a new folder",
    ),
    Format("index.sqlite", write_index, change_index, open_and_read_index, 3, "ingest into a new folder"),
    Format(
        "a.b2nd",
        lambda folder: store_scan(folder, "a", noise((8, 8, 8))),
        change_packed,
        lambda folder: open_volume(folder, "a"),
        2,
        "ingest the cohort into a new folder",
    ),
    Format(
        "a.safetensors",
        lambda folder: store_scan(folder, "a", noise((8, 8, 8)), packing="none"),
        change_flat,
        lambda folder: open_volume(folder, "a"),
        2,
        "ingest the cohort into a new folder",
    ),
    Format(
        "run.json",
        lambda folder: Run.create(folder, kind="pretrain", config={}).finish("finished"),
        change_json,
        Run.open,
        2,
        "train again in a new folder",
        writer=("versions", "medssl"),
    ),
    Format(
        "last.ckpt",
        write_checkpoint,
        change_checkpoint,
        lambda folder: read_checkpoint(folder / "last.ckpt"),
        2,
        "train again in a new folder",
    ),
    Format(
        "encoder.json",
        lambda folder: save_encoder(folder, small_network().encoder, metadata={}),
        change_json,
        load_encoder,
        2,
        "train again, or export the weights again",
        prefix="medssl-encoder-",
    ),
    Format(
        "model.json",
        lambda folder: save_network(
            folder, small_network(), metadata={"label_names": {1: "box"}, "patch": [16, 16, 16]}
        ),
        change_json,
        load_network,
        2,
        "train again, or export the weights again",
        prefix="medssl-network-",
    ),
    Format(
        "evaluation.json",
        lambda folder: Evaluation((), {}).write(folder),
        change_json,
        read_evaluation,
        2,
        "remove the file to have the run scored again",
    ),
    Format(
        "label_efficiency.json",
        lambda folder: Comparison((), ()).write(folder),
        change_json,
        Comparison.read,
        2,
        "call `medssl label-efficiency` with a new --out",
    ),
)


@pytest.fixture(params=FORMATS, ids=str)
def written(request, tmp_path) -> tuple[Format, Path]:
    """A format, and a folder with a file of it."""
    request.param.write(tmp_path)
    return request.param, tmp_path


def test_format_has_number_and_writer(written):
    kind, folder = written
    contents = []
    kind.change(folder / kind.name, lambda content: contents.append(dict(content)))
    (content,) = contents
    assert str(content["format"]) == f"{kind.prefix}{kind.number}"
    for key in kind.writer:
        content = content[key]
    assert content == version("medssl")
    kind.read(folder)


def test_newer_format_is_refused(written):
    kind, folder = written
    found = f"{kind.prefix}9" if kind.prefix else 9

    def make_newer(content: dict[str, Any]) -> None:
        content["format"] = found
        for key in kind.writer[:-1]:
            content = content[key]
        content["medssl"] = "7.1"

    kind.change(folder / kind.name, make_newer)
    expected = (
        rf"{re.escape(kind.name)}\)? has format {found}, written by medssl 7\.1; medssl {version('medssl')} reads "
        f"format {kind.prefix}{kind.number}: {kind.remedy}, or install medssl 7\\.1\\.$"
    )
    with pytest.raises(MedsslError, match=expected):
        kind.read(folder)


def test_older_format_is_refused(written):
    """Also where it names no writer."""
    kind, folder = written
    found = f"{kind.prefix}0" if kind.prefix else 0

    def make_older(content: dict[str, Any]) -> None:
        content["format"] = found
        del content[kind.writer[0]]

    kind.change(folder / kind.name, make_older)
    expected = (
        rf"{re.escape(kind.name)}\)? has format {found}, written by a medssl before 0\.1; medssl {version('medssl')} "
        f"reads format {kind.prefix}{kind.number}: {kind.remedy}\\.$"
    )
    with pytest.raises(MedsslError, match=expected):
        kind.read(folder)


@pytest.mark.parametrize("name", ["run.json", "label_efficiency.json", "evaluation.json"])
def test_missing_format_number_is_refused(name, tmp_path):
    (kind,) = (kind for kind in FORMATS if kind.name == name)
    kind.write(tmp_path)
    kind.change(tmp_path / name, lambda content: content.pop("format"))
    with pytest.raises(MedsslError, match=rf"{name} has an unnumbered format, written by medssl .*: {kind.remedy}\.$"):
        kind.read(tmp_path)


def test_index_before_format_3_is_left_as_it_is(tmp_path):
    path = tmp_path / "index.sqlite"
    with closing(sqlite3.connect(path)) as index, index:
        index.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        index.execute("INSERT INTO facts VALUES ('format', '2')")
    expected = "has format 2, written by a medssl before 0.1; .* reads format 3: ingest into a new folder"
    for opened in (open_index, read_index):
        with pytest.raises(MedsslError, match=expected), opened(tmp_path):
            pass
    with closing(sqlite3.connect(path)) as index:
        assert index.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("facts",)]


def test_resume_refuses_older_run_before_its_settings(tmp_path):
    """Settings of an older run may have names that this medssl does not know."""
    Run.create(tmp_path, kind="pretrain", config={"unknown": 1}).finish("failed")
    change_json(tmp_path / "run.json", lambda content: content.update(format=1))
    result = CliRunner().invoke(app, ["pretrain", "--resume", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "run.json has format 1, written by medssl" in result.stderr
