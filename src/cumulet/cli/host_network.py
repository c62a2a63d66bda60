"""`cumulet host clean`: ends the guests of a host that is none any more, and removes what was made of its network."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click


@click.command()
@click.option(
    "--network-namespace",
    metavar="NAME",
    help="Look in this network namespace, as `ip netns` names it.  [default: where this is run]",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="End the guests of the host with this state folder too, as long as the folder is there.  [default: end none]",
)
def clean(network_namespace: str | None, state: Path | None) -> None:
    """Remove the bridges, taps, VXLAN devices, routers and rules that Cumulet has made here.

    For a host that is taken out of a cloud, or whose agent was removed without it. Guests that still run lose their
    network; with --state they are ended, which cannot be undone. What has not been made by Cumulet is left alone: its
    interfaces are called cmb..., cmt..., cmx... and cmr..., the namespaces of its routers cmr-..., its tables of
    nftables `cumulet`.
    """
    from cumulet.agent.ending import NotEnded, end_guests
    from cumulet.drivers.linux_network.network import removed
    from cumulet.host.driver import DriverError

    if state is not None:
        try:
            ended = asyncio.run(end_guests(state.absolute()))
        except NotEnded as refused:
            raise click.ClickException(str(refused)) from None
        except OSError as error:
            raise click.ClickException(f"{error.filename or state}: {error.strerror}") from None
        click.echo(f"ended {ended} guest{'' if ended == 1 else 's'}")
    try:
        count = asyncio.run(removed(network_namespace))
    except DriverError as refused:
        raise click.ClickException(str(refused)) from None
    click.echo(f"removed {count} interface{'' if count == 1 else 's'} and all rules of Cumulet's")
