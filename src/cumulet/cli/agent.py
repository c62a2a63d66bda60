"""`cumulet agent`: the agent of one host of this machine, started by `cumulet up` and ended with it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(short_help="Run one host's agent (started by `up`, not by hand).")
@click.option("--name", required=True, help="The host's name.")
@click.option("--state", required=True, type=FOLDER, metavar="DIR", help="Where this host keeps its guests.")
@click.option("--tls", required=True, type=FOLDER, metavar="DIR", help="This host's certificates and keys.")
@click.option(
    "--socket", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The unix socket to answer on."
)
@click.option(
    "--images", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The socket to fetch images from."
)
@click.option(
    "--address", default="127.0.0.1", show_default=True, help="Where guests that move to this host are received."
)
@click.option(
    "--network-namespace", metavar="NAME", help="The network namespace it is started in, which is this host's alone."
)
@click.option("--public-device", metavar="NAME", help="The interface there that leads to physical network public.")
@click.option("--lease-seconds", type=float, help="Stop the guests when this host has not been heard for so long.")
@click.option("--guest-uids", default="70000-73999", metavar="FIRST-LAST", help="Users of guests.")
@click.option("--sharing", type=click.IntRange(min=1), default=1, help="How many hosts share this machine.")
def agent(
    *,
    name: str,
    state: Path,
    tls: Path,
    socket: Path,
    images: Path,
    address: str,
    network_namespace: str | None,
    public_device: str | None,
    lease_seconds: float | None,
    sharing: int,
    guest_uids: str,
) -> None:
    """Run the agent of one host, reached over a unix socket, until standard input closes.

    `cumulet up --driver qemu` starts one for each host. It does what commands with a current generation say, on its
    own host only; it holds no database and no cloud credentials. Its guests go on when it ends.
    """
    from cumulet.fleet.local_agents import AgentPlace
    from cumulet.processes.agent import run_agent

    # Ctrl-C reaches every process of the terminal; whether guests stay is for `up` to say, which then closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = AgentPlace(
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
    )
    asyncio.run(run_agent(place))
