"""The address that receives a host's guests: an option of `cumulet up`, and a setting."""

from __future__ import annotations

import ipaddress
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

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
        if "/" in namespace or not (NAMESPACES / namespace).is_file():
            self.fail(f"there is no network namespace {namespace!r} (see `ip netns`)", param, ctx)
        if os.geteuid() != 0 or shutil.which("nsenter") is None:
            self.fail(f"entering the network namespace {namespace!r} takes root and `nsenter`", param, ctx)
        return host, HostNetwork(address=address, namespace=namespace)
