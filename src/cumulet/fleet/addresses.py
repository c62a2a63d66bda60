"""Where the processes of a cloud are reached: by each other, by hosts on other machines, and by people here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from urllib.parse import urlsplit

from cumulet.settings import Settings

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often an agent looks whether its machine still has the address that other hosts know."""
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, never listened on by itself
THIS_MACHINE = "127.0.0.1"


def reached_at(settings: Settings) -> str:
    """The address for other machines: the public name, the listen address, or the one of the default route."""
    if settings.public_url is not None and (name := urlsplit(settings.public_url).hostname):
        return name
    if settings.listen_address not in ANY_ADDRESS:
        return settings.listen_address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards, contextlib.suppress(OSError):
        towards.connect(("192.0.2.1", 9))  # Sends nothing.
        return str(towards.getsockname()[0])
    return THIS_MACHINE


def address_towards(url: str) -> str:
    """The address of this machine on its route to `url`."""
    parts = urlsplit(url)
    family, kind, _protocol, _name, address = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as towards:
        towards.connect(address)  # Sends nothing.
        return str(towards.getsockname()[0])


async def another_address(url: str, address: str) -> str:
    """Wait until this machine has lost `address`, which it had towards `url`, and has another one; answers that."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if is_here(address):
            continue
        try:
            found = await asyncio.to_thread(address_towards, url)
        except OSError:  # It has none: the network is down.
            continue
        if found != address:
            log.warning("this machine's address is %s now, no longer %s: the agent starts anew with it", found, address)
            return found


def is_here(address: str) -> bool:
    """Whether this machine has the address."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError as problem:
            return problem.errno != errno.EADDRNOTAVAIL
    return True


def url_here(settings: Settings, address: str, port: int) -> str:
    """The URL for people on this machine of the API that listens there. It has no trailing slash."""
    if settings.tls_certificate_file is not None and settings.public_url is not None:
        return settings.public_url  # An operator's own certificate is not for this machine's addresses.
    return f"https://{in_url(THIS_MACHINE if address in ANY_ADDRESS else address)}:{port}"


def in_url(address: str) -> str:
    """An address as URLs have it."""
    return f"[{address}]" if ":" in address else address
