"""A cloud started without root runs in namespaces of its user (`rootless`); `cumulet enter` leads into them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
import msgspec

from cumulet.cli import state_folder

if TYPE_CHECKING:
    from cumulet.settings import Settings

INSIDE = "hosts and guests are in namespaces of your own, and end with the cloud"
RELAY_BYTES = 65_536


def in_namespaces(chosen: Settings) -> tuple[Settings, str | None]:
    """The settings for the namespaces that this process is in, and a line about them for people.

    If guests can have networks without root and this process is not in such namespaces yet, this does not return: the
    program starts again inside them.
    """
    from cumulet import rootless
    from cumulet.owned import trust_who_has_no_number

    told = rootless.inside()
    if told is not None:
        trust_who_has_no_number()
        return msgspec.structs.replace(chosen, guest_uids=told.guest_uids, leave_guests=False), INSIDE
    if os.geteuid() == 0 or chosen.driver != "qemu" or chosen.host_networks or not chosen.host_names:
        return chosen, None
    if chosen.public_interface is not None:
        raise click.BadParameter("only root can give an interface away", param_hint="--public-interface")
    problem = _problem(chosen) or rootless.problem()
    if problem is not None:
        return chosen, f"servers have no networks here (`networks: none`): {problem}"
    _go_in(chosen)
    raise AssertionError("this process is another one by now")


def _problem(chosen: Settings) -> str | None:
    """Why the settings do not allow namespaces; None: they do."""
    if not chosen.rootless_networks:
        return "the setting rootless_networks is off"
    if chosen.bus is not None:
        return "there is a bus to other machines (setting bus), and namespaces of your own lead to none"
    database = urlsplit(chosen.database_url)
    if database.hostname and not database.hostname.startswith(("/", "%2F", "%2f")):
        return "the database is reached over a network, and namespaces of your own lead to none"
    return None


@contextlib.contextmanager
def image_trouble_told() -> Iterator[None]:
    """Turn the error of a tiny image that cannot be built into one line, with what to do."""
    from cumulet.image.tiny import CannotBuild

    try:
        yield
    except CannotBuild as error:
        raise click.ClickException(f"the tiny image cannot be built: {error}; --bare starts without it") from error


def why_no_image(chosen: Settings) -> str | None:
    """Why a first start with real guests cannot build the tiny image; None: it can, or needs none."""
    from cumulet.image import tiny

    if chosen.driver == "simulated" or chosen.bare or (chosen.state_dir / "seeded").exists():
        return None
    return tiny.available()


def _go_in(chosen: Settings) -> None:
    from cumulet import rootless
    from cumulet.image import tiny
    from cumulet.owned import Exposed, refuse_foreign_path
    from cumulet.web.server import AddressTaken, listen

    try:
        refuse_foreign_path(chosen.state_dir)
        chosen.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not chosen.bare and not (chosen.state_dir / "seeded").exists() and tiny.available() is None:
            with image_trouble_told():
                tiny.build()  # Before the namespaces: inside there is no network to download from.
        listening = listen(chosen.listen_address, chosen.listen_port)
    except AddressTaken as error:
        raise click.ClickException(f"{error}; choose another place with --listen (port 0 picks a free one)") from error
    except Exposed as error:
        raise click.ClickException(f"cannot use the state folder {chosen.state_dir}: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    rootless.become([sys.executable, "-m", "cumulet", *sys.argv[1:]], state=chosen.state_dir, listening=listening)


@click.command(context_settings={"ignore_unknown_options": True}, short_help="Run a command in a cloud's own network.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The state folder of the cloud.  [default: ~/.local/state/cumulet]",
)
@click.option(
    "--relay",
    metavar="ADDRESS:PORT",
    help="Instead of a command: what comes on standard input goes to this address there, and its answers come back.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def enter(state: Path | None, relay: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND in the network of a cloud that was started without root. Floating IPs are reached from there.

    \b
        cumulet enter ping 172.24.4.5
        ssh -o ProxyCommand='cumulet enter --relay %h:%p' debian@172.24.4.5
    """
    if bool(relay) == bool(command):
        raise click.UsageError("give a command, or --relay ADDRESS:PORT")
    where = [shutil.which("nsenter") or "nsenter", f"--target={_keeper(state)}", "--user", "--net"]
    where += ["--preserve-credentials"]
    if relay is not None:
        address, _, port = relay.rpartition(":")
        if not address or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65_536:
            raise click.BadParameter(f"{relay!r} is not ADDRESS:PORT", param_hint="--relay")
        script = "from cumulet.cli.namespaces import carry; import sys; carry(sys.argv[1], int(sys.argv[2]))"
        command = (sys.executable, "-c", script, address.strip("[]"), port)
    os.execv(where[0], [*where, "--", *command])  # noqa: S606 - to become it is the purpose


def _keeper(state: Path | None) -> int:
    """The number of the process that keeps the cloud's namespaces."""
    from cumulet.rootless import NOTE

    folder = (state or state_folder.default()).absolute()
    try:
        noted = msgspec.json.decode((folder / NOTE).read_bytes(), type=dict[str, int])
        stat = Path(f"/proc/{noted['pid']}/stat").read_text()
        if int(stat.rpartition(")")[2].split()[19]) == noted["start_time"]:
            return noted["pid"]
    except (OSError, msgspec.DecodeError, KeyError):
        pass
    raise click.ClickException(
        f"no cloud without root runs with the state folder {folder}; the network of one that root started is this "
        "machine's own"
    )


def carry(address: str, port: int) -> None:
    """Send standard input to an address and print what comes back, until both directions have ended."""
    try:
        line = socket.create_connection((address, port), timeout=30)
    except OSError as problem:
        sys.exit(f"cumulet: {address} port {port}: {problem.strerror or problem}")
    line.settimeout(None)

    def there() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(0, RELAY_BYTES):
                line.sendall(data)
            line.shutdown(socket.SHUT_WR)

    threading.Thread(target=there, daemon=True).start()
    while data := line.recv(RELAY_BYTES):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
