"""What this machine lacks at this moment ends a command with status 1, and systemd tries again. What is malformed, or
can never be, ends it with status 2, and systemd gives up (`RestartPreventExitStatus=2` in `deploy/`).

After a reboot, interfaces, addresses, namespaces and file systems may come later than the service does.
"""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path

import click


class NotHere(click.ClickException):
    """This machine has no such thing now, and may have it later. The message says what it lacks."""

    def at(self, place: str) -> NotHere:
        """The same, with the option, or the line of a file, that named it."""
        return NotHere(f"{place}: {self.message}")


def require_folder_of(path: Path) -> None:
    """Raises `NotHere` without the folder that a file is to be written to. Its file system may not be mounted yet."""
    folder = path.absolute().parent
    if not os.path.isdir(folder):
        raise NotHere(f"there is no folder {folder}")


def in_existing_folder(_ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Check the folder of a file to be written now, not after the cloud has started."""
    try:
        if value is not None:
            require_folder_of(value)
    except NotHere as lack:
        raise lack.at(_named(param)) from None
    return value


def existing_file(_ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    """Check that a file to be read is there."""
    if not os.path.exists(value):
        raise NotHere(f"{_named(param)}: there is no file {value}")
    return value


def require_interface(option: str, name: str) -> None:
    """Raises `NotHere` without an interface of this name: a bond, a VLAN or a tunnel may come later."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        raise NotHere(f"{option}: this machine has no interface {name}") from None


def require_address(option: str, address: str) -> None:
    """Raises `NotHere` unless this machine has the address. One of a tunnel may come later."""
    try:
        family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind((address, 0))
    except ValueError:
        raise click.BadParameter(f"{address!r} is no IP address", param_hint=option) from None
    except OSError:
        raise NotHere(f"{option}: this machine has no address {address}") from None


def _named(param: click.Parameter) -> str:
    return param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
