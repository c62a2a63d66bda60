"""`cumulet host`: machines that join a cloud as its hosts, added, listed and removed over its API."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cumulet.cli import state_folder
from cumulet.cli.host_network import clean
from cumulet.cli.screen import screen, table

if TYPE_CHECKING:
    from cumulet.cli.client import Persona

PATH = "/compute/v2.1/cumulet/hosts"
clouds_file_option = click.option(
    "--clouds-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The clouds.yaml that `cumulet up` wrote.  [default: $OS_CLIENT_CONFIG_FILE, else that in your state folder]",
)
cloud_option = click.option(
    "--cloud", default="cumulet", show_default=True, help="Which entry of it: an administrator."
)


@click.group()
def host() -> None:
    """Add machines to a cloud as its hosts, list and remove them; clean up a machine's network."""


host.add_command(clean)


@contextlib.contextmanager
def administrator(clouds_file: Path | None, cloud: str) -> Iterator[Persona]:
    """Who may; what goes wrong is one line."""
    import httpx

    from cumulet.cli.client import Unexpected, credentials_of, https, log_in

    path = clouds_file or Path(os.environ.get("OS_CLIENT_CONFIG_FILE") or state_folder.default() / "clouds.yaml")
    try:
        credentials, authority = credentials_of(path, cloud)
    except FileNotFoundError as error:
        raise click.ClickException(f"there is no {path}: start a cloud with `cumulet up`, or name its file") from error
    except (KeyError, TypeError) as error:
        raise click.ClickException(f"{path} has no usable entry `{cloud}`") from error
    try:
        with https(credentials.auth_url.rsplit("/identity", 1)[0], authority) as http:
            yield log_in(http, f"{credentials.user} (entry {cloud} of {path})", credentials)
    except httpx.TransportError as error:
        raise click.ClickException(f"no cloud answers at {credentials.auth_url}: {error}") from error
    except Unexpected as error:
        raise click.ClickException(str(error)) from error


@host.command()
@click.argument("name")
@clouds_file_option
@cloud_option
def add(name: str, clouds_file: Path | None, cloud: str) -> None:
    """Let a machine join the cloud as the host NAME: prints one command, to be run on that machine as root.

    Its token is good once, for 15 minutes. The machine needs Cumulet and QEMU, and a way to this one's ports 8775 and
    4222 (settings `hosts_port` and `bus_port`).
    """
    with administrator(clouds_file, cloud) as admin:
        answer = admin.ask("POST", PATH, {"host": {"name": name}})
        if answer.status != 201:
            raise click.ClickException(answer.message)
        made = answer.json["host"]
    click.echo(f"Run this on {name}, before {made['token_ends_at']}:\n", err=True)
    click.echo(f"cumulet agent --join {made['join']} --token {made['token']} --ca-fingerprint {made['ca_fingerprint']}")
    if made["join"].startswith(("https://127.", "https://localhost", "https://[::1]")):
        click.echo(
            "\nThis cloud listens to this machine only: for others start it with `--listen 0.0.0.0:8774`.", err=True
        )


@host.command(name="list")
@clouds_file_option
@cloud_option
def list_hosts(clouds_file: Path | None, cloud: str) -> None:
    """List the hosts on other machines: those that have joined, and those that may."""
    with administrator(clouds_file, cloud) as admin:
        found = admin.get(PATH)["hosts"]
    rows = table("Hosts on other machines")
    for column in ("host", "joined", "token good until"):
        rows.add_column(column)
    for one in found:
        rows.add_row(one["name"], one["joined_at"] or "-", "-" if one["joined_at"] else one["token_ends_at"])
    screen().print(rows)


@host.command()
@click.argument("name")
@clouds_file_option
@cloud_option
def remove(name: str, clouds_file: Path | None, cloud: str) -> None:
    """Remove the host NAME, which has no servers any more: its certificates are worthless from then on."""
    with administrator(clouds_file, cloud) as admin:
        answer = admin.ask("DELETE", f"{PATH}/{name}")
        if answer.status != 204:
            raise click.ClickException(answer.message)
    click.echo(f"{name} is removed: stop `cumulet agent` there, and remove its state folder", err=True)
