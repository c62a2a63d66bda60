"""`cumulet host`: machines that join a cloud as its hosts, added, listed and removed over its API."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cumulet.cli.agent import DEFAULT_STATE
from cumulet.cli.entry import cloud_option, clouds_file_option, entry_of, logged_in
from cumulet.cli.host_network import clean
from cumulet.cli.screen import screen, table

if TYPE_CHECKING:
    from cumulet.cli.client import Persona

DOOR_SECONDS = 20.0
"""Longer than a NATS server of the cloud takes to start, or to fail."""
LOOK_SECONDS = 0.1
AGAIN = (
    "It has joined before. If it is up, stop its agent first: with this command it asks the cloud at this address from "
    "then on, and its guests run on. If it is down, it joins again, with its servers, from the state folder it had. If "
    "that is on another machine now, be sure that the one before is off.\n"
)
PATH = "/compute/v2.1/cumulet/hosts"
_cloud_option = cloud_option(words="Which entry of it: an administrator.")


def _a_name(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    from cumulet.host.joining import HOST_NAME

    if re.match(HOST_NAME, name) is None:
        raise click.BadParameter(
            f"{name!r} is no name of a host: it has lower-case letters, digits and hyphens, 1 to 63 of them, and no "
            "hyphen at its ends"
        )
    return name


_name_argument = click.argument("name", callback=_a_name)


@click.group()
def host() -> None:
    """Add machines to a cloud as its hosts, list and remove them; clean up a machine's network."""


host.add_command(clean)


@host.command()
@_name_argument
@clouds_file_option
@_cloud_option
def add(name: str, clouds_file: Path | None, cloud: str) -> None:
    """Let a machine join the cloud as the host NAME: prints one command, to be run on that machine as root.

    Its token is good once, for 15 minutes. The machine needs Cumulet and QEMU, and a way to this one's ports 8775 and
    4222 (settings `hosts_port` and `bus_port`).

    A host that has joined, and is down because its certificate has ended or its disks are in another machine now, joins
    again with it: run the command where the state folder is that it had. Its servers stay. Its former machine, if that
    is another one, has to be off.

    A host that is up is told with it where its cloud is now: stop its agent, and run the command there.
    """
    with logged_in(entry_of(clouds_file, cloud)) as admin:
        answer = admin.ask("POST", PATH, {"host": {"name": name}})
        if answer.status != 201:
            raise click.ClickException(answer.message)
        made = answer.json["host"]
        _require_open(admin, name)
    click.echo(f"Run this on {name}, before {made['token_ends_at']}:\n", err=True)
    if made["joins_again"]:
        click.echo(AGAIN, err=True)
    click.echo(f"cumulet agent --join {made['join']} --token {made['token']} --ca-fingerprint {made['ca_fingerprint']}")
    if made["join"].startswith(("https://127.", "https://localhost", "https://[::1]")):
        click.echo(
            "\nThis cloud listens to this machine only: for others start it with `--listen 0.0.0.0:8774`.", err=True
        )


def _require_open(admin: Persona, name: str) -> None:
    """The door opens after the answer, at the first invitation. Say what keeps it from that."""
    for _ in range(round(DOOR_SECONDS / LOOK_SECONDS)):
        door = admin.get(PATH)["door"]
        if door is None or (door["open"] and door["problem"] is None):
            return
        if door["problem"] is not None:
            raise click.ClickException(
                f"no machine can join this cloud: {door['problem']}. Mend that, and run `cumulet host add {name}` again"
            )
        time.sleep(LOOK_SECONDS)
    raise click.ClickException(f"machines cannot join this cloud yet: run `cumulet host add {name}` again")


@host.command(name="list")
@clouds_file_option
@_cloud_option
def list_hosts(clouds_file: Path | None, cloud: str) -> None:
    """List the hosts on other machines: those that have joined, and those that may."""
    with logged_in(entry_of(clouds_file, cloud)) as admin:
        found = admin.get(PATH)["hosts"]
    rows = table("Hosts on other machines")
    for column in ("host", "joined", "token good until"):
        rows.add_column(column)
    for one in found:
        may_join = one["joined_at"] is None or one["joins_again"]
        rows.add_row(one["name"], one["joined_at"] or "-", one["token_ends_at"] if may_join else "-")
    screen().print(rows)


@host.command()
@_name_argument
@clouds_file_option
@_cloud_option
def remove(name: str, clouds_file: Path | None, cloud: str) -> None:
    """Remove the host NAME, which has no servers any more: its certificates are worthless from then on."""
    with logged_in(entry_of(clouds_file, cloud)) as admin:
        services = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
        only_invited = any(one["name"] == name and one["joined_at"] is None for one in admin.get(PATH)["hosts"])
        down = any(one["host"] == name and one["state"] != "up" for one in services)
        answer = admin.ask("DELETE", f"{PATH}/{name}")
        if answer.status != 204:
            raise click.ClickException(answer.message)
    if only_invited:
        click.echo(f"{name} had not joined: its token is void now, and there is no machine to clean", err=True)
        return
    may_run = "; it was down, so guests that were deleted meanwhile may still run there" if down else ""
    click.echo(
        f"{name} is removed{may_run}. On that machine, stop `cumulet agent`, end what still runs with "
        f"`cumulet host clean --state {DEFAULT_STATE}`, and only then remove that folder",
        err=True,
    )
