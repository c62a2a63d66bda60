"""`cumulet console SERVER`: this terminal becomes a server's serial console, until Ctrl-]."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cumulet.cli import state_folder

if TYPE_CHECKING:
    from cumulet.cli.client import Persona
    from cumulet.cli.websocket import WebSocketClient

ESCAPE = b"\x1d"
"""Ctrl-]: as with telnet and virsh."""


@click.command(short_help="Attach this terminal to a server's serial console.")
@click.argument("server")
@click.option("--url", is_flag=True, help="Print the address of a page with the console instead. It is good once.")
@click.option(
    "--clouds-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The clouds.yaml that `cumulet up` wrote.  [default: $OS_CLIENT_CONFIG_FILE, else that in your state folder]",
)
@click.option("--cloud", default="cumulet", show_default=True, help="Which entry of it.")
def console(server: str, url: bool, clouds_file: Path | None, cloud: str) -> int:
    """Type on the serial console of SERVER, named by its id or its name. Ctrl-] leaves it; the server goes on."""
    import httpx

    from cumulet.cli.client import Unexpected, credentials_of, https, log_in

    path = clouds_file or Path(os.environ.get("OS_CLIENT_CONFIG_FILE") or state_folder.default() / "clouds.yaml")
    try:
        credentials, authority = credentials_of(path, cloud)
    except FileNotFoundError as error:
        raise click.ClickException(f"there is no {path}: start a cloud with `cumulet up`, or name its file") from error
    except (KeyError, TypeError) as error:
        raise click.ClickException(f"{path} has no usable entry `{cloud}`") from error
    try:
        with https(credentials.auth_url.rsplit("/identity", 1)[0], authority) as http:
            address = _address(log_in(http, credentials.user, credentials), server)
    except httpx.TransportError as error:
        raise click.ClickException(f"no cloud answers at {credentials.auth_url}: {error}") from error
    except Unexpected as error:
        raise click.ClickException(str(error)) from error
    if url:
        click.echo(address.replace("wss", "https", 1))
        return 0
    context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    why = asyncio.run(attach(address, context, sys.stdin.buffer.fileno(), sys.stdout.buffer.fileno()))
    click.echo(f"\r\ncumulet: {why}", err=True)
    return 0


def _address(person: Persona, server: str) -> str:
    """Of the console of the one server with this id or name."""
    found: list[dict[str, Any]] = person.get("/compute/v2.1/servers")["servers"]
    ids = [one["id"] for one in found if server in (one["id"], one["name"])]
    if len(ids) != 1:
        raise click.ClickException(f"{'no server is' if not ids else f'{len(ids)} servers are'} called {server}")
    body = {"remote_console": {"protocol": "serial", "type": "serial"}}
    answer = person.must("POST", f"/compute/v2.1/servers/{ids[0]}/remote-consoles", body)
    address: str = answer["remote_console"]["url"]
    return address


async def attach(address: str, context: ssl.SSLContext, typing: int, printing: int) -> str:
    """Relay between two descriptors and a console until either end has enough; answers why it is over."""
    from cumulet.cli.websocket import Refused, WebSocketClient

    try:
        line = await WebSocketClient.connect(address, context)
    except (Refused, OSError, TimeoutError) as problem:
        raise click.ClickException(f"the console cannot be reached: {problem}") from problem
    os.write(printing, b"Connected. Ctrl-] leaves the console.\r\n")
    left = asyncio.Event()
    loop = asyncio.get_running_loop()

    def typed() -> None:
        data = os.read(typing, 4096)
        before, escape, _ = data.partition(ESCAPE)
        if before:
            line.write(before)
        if escape or not data:
            loop.remove_reader(typing)
            left.set()

    with _raw(typing):
        loop.add_reader(typing, typed)
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


async def _show(line: WebSocketClient, printing: int) -> None:
    while data := await line.read():
        await asyncio.to_thread(_write, printing, data)


def _write(printing: int, data: bytes) -> None:
    while data:
        data = data[os.write(printing, data) :]


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Keys go through as they are pressed; nothing changes where it is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
