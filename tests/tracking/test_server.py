"""MLflow's server: only for this machine unless hosts are named, and its link leads to the runs."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from medssl.errors import TrackingError, UsageError
from medssl.tracking.server import link_to_runs, start_server
from medssl_cli.commands.ui import ui

URL = "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("ids", "page"), [(["0", "7"], "experiments/7/runs"), (["0"], "experiments"), (["7", "8"], "experiments")]
)
def test_link_leads_to_runs(monkeypatch, ids, page):
    """Not to MLflow's pages for language models."""
    answer = json.dumps({"experiments": [{"experiment_id": number} for number in ids]}).encode()
    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: io.BytesIO(answer))
    assert link_to_runs(URL) == f"{URL}/#/{page}?workflowType=machine_learning"


def test_link_without_answer_of_server(monkeypatch):
    def refuse(request: object, timeout: float) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert link_to_runs(URL) == f"{URL}/#/experiments?workflowType=machine_learning"


def test_ui_requires_allowed_hosts_for_other_machines(tmp_path):
    with pytest.raises(UsageError, match="--allowed-hosts"):
        ui(tmp_path, host="0.0.0.0", port=5000, allowed_hosts=None)


def test_server_requires_database(tmp_path):
    with pytest.raises(TrackingError, match=r"no mlflow\.db"):
        start_server(tmp_path, host="127.0.0.1", port=5000, allowed_hosts=None)
    assert list(tmp_path.iterdir()) == []


def test_server_ends_with_killed_command(tmp_path, monkeypatch):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    monkeypatch.setattr("medssl.tracking.server.start_server", lambda *args, **kwargs: sleeper)

    def killed(*args: object, **kwargs: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr("medssl.tracking.server.wait_until_healthy", killed)
    with pytest.raises(SystemExit) as caught:
        ui(tmp_path, host="127.0.0.1", port=5000, allowed_hosts=None)
    assert caught.value.code == 128 + signal.SIGTERM
    assert sleeper.poll() is not None


@pytest.mark.enable_socket
@pytest.mark.parametrize("listens_at", ["127.0.0.1", "0.0.0.0"])
def test_server_reports_taken_port_before_start(tmp_path, monkeypatch, listens_at):
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("a server was started"))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((listens_at, 0))
        other.listen()
        with pytest.raises(TrackingError, match="is taken by another program"):
            start_server(tmp_path, host="127.0.0.1", port=other.getsockname()[1], allowed_hosts=None)


@pytest.mark.enable_socket
def test_server_reports_foreign_address(tmp_path):
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(TrackingError, match=r"No server can listen at 192\.0\.2\.1:5000"):
        start_server(tmp_path, host="192.0.2.1", port=5000, allowed_hosts=None)


def test_server_that_dies_is_an_error(tmp_path, monkeypatch, capsys):
    dying = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], start_new_session=True)
    monkeypatch.setattr("medssl.tracking.server.start_server", lambda *args, **kwargs: dying)
    monkeypatch.setattr("medssl.tracking.server.wait_until_healthy", lambda *args, **kwargs: None)
    monkeypatch.setattr("medssl.tracking.server.link_to_runs", lambda url: url)
    with pytest.raises(TrackingError, match="ended with code 3"):
        ui(tmp_path, host="127.0.0.1", port=5000, allowed_hosts=None)
