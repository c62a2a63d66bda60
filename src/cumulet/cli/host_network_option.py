"""The address that receives a host's guests: an option of `cumulet up`, and a setting."""

from __future__ import annotations

import ipaddress
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cumulet.cli.not_here import NotHere

if TYPE_CHECKING:
    from cumulet.settings import HostNetwork

NAMESPACES = Path("/run/netns")


class HostNetworkType(click.ParamType["tuple[str, HostNetwork]"]):
    """``HOST=ADDRESS[@NAMESPACE]``."""

    name = "HOST=ADDRESS[@NAMESPACE]"

    def convert(
        self, value: str | tuple[str, HostNetwork], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, HostNetwork]:
        from cumulet.settings import HostNetwork

        if isinstance(value, tuple):
            return value
        host, _, place = value.partition("=")
        address, at, namespace = place.partition("@")
        try:
            ipaddress.ip_address(address)
        except ValueError:
            self.fail(f"{value!r} is not HOST=ADDRESS[@NAMESPACE], like host1=192.0.2.1", param, ctx)
        if not at:
            return host, HostNetwork(address=address)
        if "/" in namespace or namespace in ("", ".", ".."):
            self.fail(f"{namespace!r} is no name of a network namespace", param, ctx)
        if os.geteuid() != 0:
            self.fail(f"entering the network namespace {namespace!r} takes root", param, ctx)
        named = value if param is None else f"{param.opts[0]} {value}"
        if not (NAMESPACES / namespace).is_file():
            raise NotHere(f"{named}: there is no network namespace {namespace!r} (see `ip netns`)")
        if shutil.which("nsenter") is None:
            raise NotHere(f"{named}: entering a network namespace takes `nsenter` (Debian package: util-linux)")
        return host, HostNetwork(address=address, namespace=namespace)
