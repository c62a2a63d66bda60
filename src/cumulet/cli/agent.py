"""`cumulet agent`: the agent of one host: of a machine that joins a cloud, or of the cloud's own machine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from cumulet.cli import state_folder
from cumulet.cli.configuration import SettingType, checked_option
from cumulet.cli.not_here import require_address, require_interface
from cumulet.host.limits import HostLimits

DEFAULT_STATE = Path("/var/lib/cumulet-host")
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(short_help="Run the agent of this machine, as a host of a cloud.")
@click.option("--join", "url", metavar="URL", help="The cloud to join, as `cumulet host add` printed it.")
@click.option("--token", help="The one-time token that it printed.")
@click.option("--ca-fingerprint", metavar="SHA256", help="The fingerprint of the cloud's authority, as it printed it.")
@click.option(
    "--state",
    type=FOLDER,
    metavar="DIR",
    help=f"Where this host keeps its keys and its guests.  [default: {DEFAULT_STATE}]",
)
@click.option(
    "--migration-address",
    metavar="ADDRESS",
    help="Where guests that move to this host are received.  [default: this machine's address towards the cloud]",
)
@click.option("--no-networks", is_flag=True, help="Wire no guests: leave this machine's network alone.")
@click.option("--emulated", is_flag=True, help="Join though this machine has no KVM: guests are emulated, and slow.")
@click.option("--name", hidden=True)
@click.option("--tls", type=FOLDER, hidden=True)
@click.option("--socket", type=click.Path(path_type=Path), hidden=True)
@click.option("--images", type=click.Path(path_type=Path), hidden=True)
@click.option("--address", default="127.0.0.1", hidden=True)
@click.option("--network-namespace", hidden=True)
@click.option("--public-device", metavar="NAME", help="The interface here that leads to physical network public.")
@click.option("--lease-seconds", type=float, hidden=True)
@click.option("--guest-uids", default="70000-73999", metavar="FIRST-LAST", help="Users of guests, started as root.")
@click.option(
    "--set",
    "sets",
    type=SettingType(),
    multiple=True,
    help=f"What guests and images may take here, as of `cumulet up`: {', '.join(HostLimits.__struct_fields__)}.",
)
@click.option("--sharing", type=click.IntRange(min=1), default=1, hidden=True)
def agent(
    *,
    url: str | None,
    token: str | None,
    ca_fingerprint: str | None,
    state: Path | None,
    migration_address: str | None,
    no_networks: bool,
    emulated: bool,
    name: str | None,
    tls: Path | None,
    socket: Path | None,
    images: Path | None,
    address: str,
    network_namespace: str | None,
    public_device: str | None,
    lease_seconds: float | None,
    sharing: int,
    guest_uids: str,
    sets: tuple[tuple[str, object], ...],
) -> None:
    """Run the agent of this machine, until Ctrl-C or SIGTERM. Its guests go on when it ends.

    The first time, run the command that `cumulet host add NAME` prints where the cloud runs: this machine makes keys,
    gets its certificates, and is a host seconds later. Later on `cumulet agent` alone will do. It dials out to the
    cloud and listens to nothing; it does what commands with a current generation say, on this machine only, and holds
    no credentials of the cloud's database or users.
    """
    limits = _limits(sets)
    if socket is not None and name is not None and state is not None and tls is not None and images is not None:
        _run_beside_cloud(
            name=name,
            state=state,
            tls=tls,
            socket=socket,
            images=images,
            address=address,
            network_namespace=network_namespace,
            public_device=public_device,
            lease_seconds=lease_seconds,
            sharing=sharing,
            guest_uids=guest_uids,
            limits=limits,
        )
        return
    _refuse_half(url, token, ca_fingerprint)
    _refuse_other_than_https(url)
    _refuse_what_is_not_here(migration_address, public_device)
    _run_joined(
        state=(state or DEFAULT_STATE).absolute(),
        url=url,
        token=token,
        ca_fingerprint=ca_fingerprint,
        migration_address=migration_address,
        wire_guests=not no_networks and os.geteuid() == 0,
        emulated=emulated,
        public_device=public_device,
        guest_uids=guest_uids,
        limits=limits,
    )


def _limits(sets: tuple[tuple[str, object], ...]) -> HostLimits:
    for name, _ in sets:
        if name not in HostLimits.__struct_fields__:
            raise click.UsageError(f"--set {name}: that is a setting of the cloud, not of one of its hosts")
    return msgspec.convert(dict(sets), HostLimits)


def _refuse_half(url: str | None, token: str | None, ca_fingerprint: str | None) -> None:
    given = {"--join": url, "--token": token, "--ca-fingerprint": ca_fingerprint}
    missing = [option for option, value in given.items() if not value]
    if 0 < len(missing) < len(given):
        raise click.UsageError(f"to join, give {' and '.join(missing)} too: run what `cumulet host add` printed")


def _refuse_other_than_https(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        whole = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        words = f"{url!r} is not https://ADDRESS:PORT, and only https is spoken: give what `cumulet host add` printed"
        raise click.BadParameter(words, param_hint="--join")


def _refuse_what_is_not_here(address: str | None, device: str | None) -> None:
    if device is not None:
        require_interface("--public-device", checked_option("--public-device", "public_interface", device))
    if address is not None:
        require_address("--migration-address", address)


def _run_joined(**given: Any) -> None:
    from cumulet.processes.joined_agent import JoinedPlace, NoHost, run_joined_agent
    from cumulet.web.log import end_log, log_to

    log = log_to(None, level=logging.INFO, as_json=not sys.stderr.isatty())
    try:
        with state_folder.room_told(given["state"]):
            asyncio.run(run_joined_agent(JoinedPlace(**given)))
    except NoHost as problem:
        raise click.ClickException(str(problem)) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        raise click.ClickException(f"{place}{error.strerror or error}") from None
    finally:
        end_log(log)


def _run_beside_cloud(**given: Any) -> None:
    """Started by `cumulet up`, reached over a unix socket, until standard input closes."""
    from cumulet.fleet.local_agents import AgentPlace
    from cumulet.processes.agent import run_agent

    # Ctrl-C reaches every process of the group. But `up` decides whether guests stay, and closes this process's
    # standard input when it has to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(run_agent(AgentPlace(**given)))
