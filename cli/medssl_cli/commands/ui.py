"""`medssl ui`: MLflow's web interface for a workspace."""

from pathlib import Path
from typing import Annotated

import typer

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def ui(
    folder: Annotated[Path, typer.Argument(help="Workspace: the folder with mlflow.db, beside your runs.")] = Path(),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    allowed_hosts: Annotated[
        str | None, typer.Option(help="Host names that may connect; required with another --host.")
    ] = None,
) -> None:
    """Start MLflow's server for a workspace and print its link. Ctrl-C stops it.

    Example: medssl ui runs
    """
    from rich.console import Console

    from medssl.errors import UsageError
    from medssl.runs.ending import sigterm_as_exception
    from medssl.tracking.server import link_to_runs, start_server, stop_server, wait_until_end, wait_until_healthy

    if host not in LOCAL_HOSTS and not allowed_hosts:
        raise UsageError(
            f"--host {host} lets other machines connect, and MLflow has no login: whoever reaches it can see and "
            "delete everything. Use an SSH tunnel, or name the hosts with --allowed-hosts."
        )
    url = f"http://{host}:{port}"
    server = start_server(folder, host=host, port=port, allowed_hosts=allowed_hosts)
    # Otherwise `kill` would end the command and leave the server running.
    with sigterm_as_exception():
        try:
            with Console(stderr=True).status("starting MLflow"):
                wait_until_healthy(server, url, waiting=lambda: None)
            typer.echo(f"MLflow: {link_to_runs(url)}  (Ctrl-C stops it)")
            wait_until_end(server)
        finally:
            stop_server(server)
