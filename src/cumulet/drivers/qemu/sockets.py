"""Sockets of a copy: the agent makes them, in the host's network, and hands them to a QEMU that has none of its own.

QEMU goes on with them when the agent is gone. It can neither make others nor turn these (`jail.refuse_connections`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from cumulet.host.driver import DriverError

if TYPE_CHECKING:
    from cumulet.drivers.qemu.commands import Commands

_CONNECT_SECONDS = 5.0
_WAITING = 4


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listener(address: str) -> socket.socket:
    """Listening at a free port. DriverError: this machine has lost the address."""
    made = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # What is accepted has it, too.
        made.bind((address, 0))
        made.listen(_WAITING)
    except BaseException as problem:
        made.close()
        if isinstance(problem, OSError) and problem.errno == errno.EADDRNOTAVAIL:
            raise DriverError(
                f"ADDRESS_GONE: this host receives moves at {address}, which its machine has not got any more"
            ) from problem
        raise
    return made


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


async def connected(address: str, port: int) -> socket.socket:
    """A connection to this address. Raises `DriverError` where nobody accepts it in time."""
    made = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(_CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        made.setblocking(True)
    except BaseException as problem:
        made.close()
        if isinstance(problem, OSError):  # A TimeoutError is one.
            raise DriverError(f"UNREACHABLE: {address} port {port}: {problem.strerror or 'no answer'}") from problem
        raise
    return made


async def hand_over(hypervisor: Commands, name: str, address: str, port: int) -> None:
    """Connect, and give the connection to a QEMU, which knows it by `name`."""
    with await connected(address, port) as connection:
        await hypervisor.getfd(name, connection.fileno())


async def paired(
    hypervisor: Commands, name: str, use: Callable[[], Awaitable[None]]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """One end of a pair of sockets. QEMU has the other, as `name`, and `use` tells it what that is for."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        await hypervisor.getfd(name, theirs.fileno())
        await use()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return await asyncio.open_connection(sock=ours)
