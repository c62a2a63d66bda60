"""`cumulet console SERVER`: this terminal becomes a server's serial console, until Ctrl-]."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cumulet.cli.entry import cloud_option, clouds_file_option, entry_of, logged_in

if TYPE_CHECKING:
    from cumulet.cli.client import Persona
    from cumulet.cli.websocket import WebSocketClient

ESCAPE = b"\x1d"
"""Ctrl-]: as with telnet and virsh."""


@click.command(short_help="Attach this terminal to a server's serial console.")
@click.argument("server")
@click.option("--url", is_flag=True, help="Print the address of a page with the console instead. It is good once.")
@clouds_file_option
@cloud_option(variable="OS_CLOUD")
def console(server: str, url: bool, clouds_file: Path | None, cloud: str) -> int:
    """Type on the serial console of SERVER, named by its id or its name. Ctrl-] leaves it; the server goes on."""
    entry = entry_of(clouds_file, cloud)
    with logged_in(entry) as person:
        address = _address(person, server)
    if url:
        click.echo(address.replace("wss", "https", 1))
        return 0
    context = ssl.create_default_context(cafile=None if entry.authority is None else str(entry.authority))
    why = asyncio.run(attach(address, context, sys.stdin.buffer.fileno(), sys.stdout.buffer.fileno()))
    click.echo(f"\r\ncumulet: {why}", err=True)
    return 0


def _address(person: Persona, server: str) -> str:
    """The URL of a console of the one server with this id or name: of the caller's project, or of any that it sees."""
    from cumulet.cli.client import Unexpected

    ids = _called(person, server, "/compute/v2.1/servers")
    if not ids:
        with contextlib.suppress(Unexpected):  # Only administrators may ask so.
            ids = _called(person, server, "/compute/v2.1/servers?all_tenants=1")
    if len(ids) != 1:
        found = "no server is" if not ids else f"{len(ids)} servers are"
        raise click.ClickException(f"{found} called {server}, as {person.name} sees it")
    body = {"remote_console": {"protocol": "serial", "type": "serial"}}
    answer = person.must("POST", f"/compute/v2.1/servers/{ids[0]}/remote-consoles", body)
    address: str = answer["remote_console"]["url"]
    return address


def _called(person: Persona, server: str, path: str) -> list[str]:
    return [one["id"] for one in person.every(path, "servers") if server in (one["id"], one["name"])]


async def attach(address: str, context: ssl.SSLContext, typing: int, printing: int) -> str:
    """Relay between two descriptors and a console until either end closes. Returns the reason."""
    from cumulet.cli.websocket import Refused, WebSocketClient

    try:
        line = await WebSocketClient.connect(address, context)
    except (Refused, OSError, TimeoutError) as problem:
        raise click.ClickException(f"the console cannot be reached: {problem}") from problem
    os.write(printing, b"Connected. Ctrl-] leaves the console.\r\n")
    left = asyncio.Event()
    loop = asyncio.get_running_loop()

    def typed() -> bool:
        data = os.read(typing, 4096)
        before, escape, _ = data.partition(ESCAPE)
        if before:
            line.write(before)
        if escape or not data:
            left.set()
        return bool(data and not escape)

    with _raw(typing):
        _watch(loop, typing, typed)
        show = asyncio.create_task(_show(line, printing))
        leave = asyncio.create_task(left.wait())
        try:
            await asyncio.wait({show, leave}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(typing)
            show.cancel()
            leave.cancel()
            why = line.closed or "left the console"
            await line.close()
    return why


def _watch(loop: asyncio.AbstractEventLoop, descriptor: int, read: Callable[[], bool]) -> None:
    """Call `read` whenever there is something to read, until it returns False."""
    try:
        loop.add_reader(descriptor, lambda: read() or loop.remove_reader(descriptor))
    except PermissionError:  # A file, or /dev/null: it can always be read.
        while read():
            pass


async def _show(line: WebSocketClient, printing: int) -> None:
    while data := await line.read():
        await asyncio.to_thread(_write, printing, data)


def _write(printing: int, data: bytes) -> None:
    while data:
        data = data[os.write(printing, data) :]


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """In the block, keys are read as they are pressed. Does nothing if the descriptor is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
