"""Options of `cumulet up` for what few people change: a setting by its name, and where a host's guests are reached."""

from __future__ import annotations

import ipaddress
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import click

if TYPE_CHECKING:
    from cumulet.settings import HostNetwork

NAMESPACES = Path("/run/netns")
_OF_OTHER_OPTIONS = {
    "state_dir", "database_url", "listen_address", "listen_port", "driver", "host_names", "host_networks", "bare",
    "policy_file", "simulated_speed",
}  # fmt: skip

Setting = tuple[str, str | float | bool | None]


class SettingType(click.ParamType[Setting]):
    """``NAME=VALUE``, a field of `cumulet.settings.Settings` that no other option sets."""

    name = "NAME=VALUE"

    def convert(self, value: str | Setting, param: click.Parameter | None, ctx: click.Context | None) -> Setting:
        import msgspec

        from cumulet.settings import Settings

        if isinstance(value, tuple):
            return value
        name, _, text = value.partition("=")
        types = {
            key: kind
            for key, kind in get_type_hints(Settings, include_extras=True).items()
            if key not in _OF_OTHER_OPTIONS
        }
        if name not in types:
            self.fail(f"there is no setting {name!r}; there are {', '.join(types)}", param, ctx)
        try:
            setting: str | float | bool | None = msgspec.convert(text, types[name], strict=False)
        except msgspec.ValidationError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if isinstance(setting, int | float) and not 0 <= setting < math.inf:
            self.fail(f"{value!r}: expected a number from 0 on", param, ctx)
        return name, setting


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
