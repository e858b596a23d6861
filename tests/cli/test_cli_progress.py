"""Progress of a training: plain lines, a live line in a terminal, nothing on other ranks."""

import io

import pytest

from medssl.progress import Progress
from medssl.training.step_metrics import progress_note
from medssl_cli.progress import TrainingProgress

NUMBERS = {"train/loss": 1.0, "train/volumes_per_s": 4.2, "train/data_wait_fraction": 0.031}


class Clock:
    """Time that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(stream: io.StringIO, *, steps: int = 30, first: int = 1, seconds: float = 1.0, **arguments) -> str:
    clock = Clock()
    progress: Progress = TrainingProgress("masked-volume", stream=stream, clock=clock, **arguments)
    progress.step("training", first - 1, steps)
    for step in range(first, steps + 1):
        clock.now += seconds
        progress.step("training", step, steps, progress_note(NUMBERS | {"train/loss": 1 / step}))
    progress.close("encoder: runs/a")
    return stream.getvalue()


def test_plain_progress_prints_every_ten_seconds():
    lines = run(io.StringIO()).splitlines()
    assert lines[0] == "masked-volume: 30 steps"
    assert [line.split(" · ")[0] for line in lines[1:-1]] == [f"masked-volume: step {n}/30" for n in (10, 20, 30)]
    assert lines[1].split(" · ")[1:] == ["loss 0.1", "4.2 volumes/s", "data wait 3%", "0:00:20 left"]
    assert lines[-1] == "encoder: runs/a"


def test_plain_progress_shows_last_step():
    lines = run(io.StringIO(), seconds=0.01).splitlines()
    assert [line.split(" · ")[0] for line in lines] == [
        "masked-volume: 30 steps",
        "masked-volume: step 30/30",
        "encoder: runs/a",
    ]
    assert lines[1].endswith("done")


def test_time_left_counts_steps_of_this_process():
    lines = run(io.StringIO(), steps=1000, first=981).splitlines()
    assert "step 990/1000" in lines[1]
    assert lines[1].endswith("0:00:10 left")


def test_live_progress_shows_all_figures():
    text = run(Terminal(), steps=12)
    assert "\x1b[" in text
    for part in ("masked-volume", "12/12", "volumes/s", "data wait 3%", "encoder: runs/a"):
        assert part in text


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_progress_is_silent_on_other_ranks(stream, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert run(stream) == ""


def test_progress_closes_without_steps():
    stream = io.StringIO()
    TrainingProgress(stream=stream).close("")
    assert stream.getvalue() == ""


def test_say_prints_lasting_line():
    for stream in (io.StringIO(), Terminal()):
        progress = TrainingProgress("simclr", stream=stream)
        progress.say("patch is auto: [16, 16, 16]: the median scan")  # before the first step
        progress.step("training", 0, 30)
        progress.step("training", 1, 30, progress_note(NUMBERS))
        progress.say("alarm at step 1: complete collapse: all features [0.3] are becoming one.")
        progress.close("")
        shown = " ".join(stream.getvalue().split())
        assert "simclr: patch is auto: [16, 16, 16]: the median scan" in shown
        assert "simclr: alarm at step 1: complete collapse: all features [0.3] are becoming one." in shown


def test_say_is_silent_on_other_ranks():
    stream = io.StringIO()
    TrainingProgress(stream=stream, rank=1).say("alarm")
    assert not stream.getvalue()
