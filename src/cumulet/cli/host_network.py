"""`cumulet host clean`: removes what an agent has made of this machine's network, and nothing else."""

from __future__ import annotations

import asyncio

import click


@click.command()
@click.option(
    "--network-namespace",
    metavar="NAME",
    help="Look in this network namespace, as `ip netns` names it.  [default: where this is run]",
)
def clean(network_namespace: str | None) -> None:
    """Remove the bridges, taps, VXLAN devices, routers and rules that Cumulet has made here.

    For a host that is taken out of a cloud, or whose agent was removed without it. Guests that still run lose their
    network. What has not been made by Cumulet is left alone: its interfaces are called cmb..., cmt..., cmx... and
    cmr..., the namespaces of its routers cmr-..., its tables of nftables `cumulet`.
    """
    from cumulet.drivers.linux_network.network import removed
    from cumulet.host.driver import DriverError

    try:
        count = asyncio.run(removed(network_namespace))
    except DriverError as refused:
        raise click.ClickException(str(refused)) from None
    click.echo(f"removed {count} interface{'' if count == 1 else 's'} and all rules of Cumulet's")
