"""MLflow's own server on this machine, for looking at a workspace."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from medssl.errors import TrackingError
from medssl.tracking.workspace import ARTIFACTS, DATABASE

START_LIMIT_S = 120.0


def start_server(folder: Path, *, host: str, port: int, allowed_hosts: str | None) -> subprocess.Popen[bytes]:
    """Start `mlflow server` over the workspace's database, in a process group of its own.

    One worker and no job execution: 2 processes and 0.5 GB in place of 10 and 1.8 GB, and the job interface has no
    login (CVE-2026-0545). Raises TrackingError when the workspace has no database, or the port is taken.
    """
    database = folder.absolute() / DATABASE
    if not database.exists():
        raise TrackingError(
            f"{folder} has no {DATABASE}. Train something there first, or give the folder that holds your runs."
        )
    check_port(host, port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}"]
    command += ["--default-artifact-root", (database.parent / ARTIFACTS).as_uri()]
    if allowed_hosts:
        command += ["--allowed-hosts", allowed_hosts]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    log = (database.parent / ".mlflow-server.log").open("wb")
    with log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def check_port(host: str, port: int) -> None:
    """Raise TrackingError where this address cannot be bound: another program there would answer in place of MLflow."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections that are just closing do not block the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise TrackingError(f"The port {port} is taken by another program. Try another with --port.") from None
        reason = error.strerror or type(error).__name__
        raise TrackingError(
            f"No server can listen at {host}:{port} ({reason}). Try another --host or --port."
        ) from error


def wait_until_end(server: subprocess.Popen[bytes]) -> None:
    """Wait for the server to end. Raises TrackingError where its exit code is not 0."""
    if code := server.wait():
        raise TrackingError(f"The MLflow server ended with code {code}. See .mlflow-server.log.")


def wait_until_healthy(server: subprocess.Popen[bytes], url: str, *, waiting: Callable[[], None]) -> None:
    """Return when the server answers. Raises TrackingError when it ends or takes longer than two minutes."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        if server.poll() is not None:
            raise TrackingError(
                f"The MLflow server ended with code {server.returncode}. See .mlflow-server.log; the port may be "
                "taken: try another with --port."
            )
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            waiting()
            time.sleep(0.5)
    stop_server(server)
    raise TrackingError(
        f"The MLflow server did not answer at {url} within {START_LIMIT_S:.0f} s. See .mlflow-server.log."
    )


def link_to_runs(url: str) -> str:
    """Address of the runs of the only experiment, or of the list of experiments where there are several.

    Without `workflowType` in the address, MLflow opens on its pages for language models, which show no runs.
    """
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 100}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            experiments = json.load(answer).get("experiments", [])
    except (OSError, ValueError):
        experiments = []
    # Experiment 0 is MLflow's empty "Default".
    ids = [experiment["experiment_id"] for experiment in experiments if experiment["experiment_id"] != "0"]
    page = f"experiments/{ids[0]}/runs" if len(ids) == 1 else "experiments"
    return f"{url}/#/{page}?workflowType=machine_learning"


def stop_server(server: subprocess.Popen[bytes]) -> None:
    """End the server and everything it started."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
