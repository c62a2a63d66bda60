"""`cumulet up`: a whole cloud in one process, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import click
import msgspec

from cumulet.cli import state_folder
from cumulet.cli.driver_choice import Wish, choose
from cumulet.cli.setting_options import HostNetworkType, Setting, SettingType

if TYPE_CHECKING:
    from cumulet.processes.all import EmbeddedCloud
    from cumulet.settings import HostNetwork, Settings

DEFAULT_LISTEN = "127.0.0.1:8774"
DEFAULT_HOSTS = 2
MOST_HOSTS = 10_000


class Listen(msgspec.Struct, frozen=True):
    """Where to serve: an address, and a port (0: a free one)."""

    address: str
    port: int


class ListenType(click.ParamType[Listen]):
    """``ADDRESS:PORT``, an IPv6 address in brackets."""

    name = "ADDRESS:PORT"

    def convert(self, value: str | Listen, param: click.Parameter | None, ctx: click.Context | None) -> Listen:
        if isinstance(value, Listen):
            return value
        address, colon, port = value.rpartition(":")
        if address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        elif ":" in address:
            self.fail(f"{value!r}: put an IPv6 address in brackets, like [::1]:8774", param, ctx)
        if not colon or not address or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
            self.fail(f"{value!r} is not ADDRESS:PORT, like {DEFAULT_LISTEN} (port 0 picks a free one)", param, ctx)
        return Listen(address, int(port))


def in_existing_folder(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A file to be written: refused now, not after the cloud has started."""
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.absolute().parent}", ctx, param)
    return value


def without_password(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Every user of a machine sees every command line."""
    named_here = (
        param.name is not None and ctx.get_parameter_source(param.name) is click.core.ParameterSource.COMMANDLINE
    )
    if value is not None and named_here and _has_password(value):
        raise click.BadParameter(
            "a password on the command line is seen by every user of this machine; set CUMULET_DATABASE to the URL "
            "instead, or leave the password to ~/.pgpass",
            ctx,
            param,
        )
    return value


def _has_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False  # It is no URL; whoever opens it says so.
    return parts.password is not None or any(name == "password" for name, _ in parse_qsl(parts.query))


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` tells others: credentials, the URL for whoever waits for the start, why this driver."""

    clouds_file: Path
    ready_file: Path | None
    log_file: Path | None
    why_driver: str


@click.command(short_help="Run a whole cloud in the foreground.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep all state here, and find it again at the next start.  [default: ~/.local/state/cumulet]",
)
@click.option(
    "--listen",
    type=ListenType(),
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Serve HTTPS here. Port 0 picks a free one.",
)
@click.option(
    "--driver",
    type=click.Choice(["auto", "simulated", "qemu"]),
    default="auto",
    show_default=True,
    help="What hosts run: real QEMU guests, or simulated ones. auto: QEMU where it is installed.",
)
@click.option(
    "--hosts",
    type=click.IntRange(1, MOST_HOSTS),
    default=DEFAULT_HOSTS,
    show_default=True,
    metavar="N",
    help="How many hosts there are, called host1, host2, ...; real ones share what this machine has.",
)
@click.option(
    "--clouds-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=in_existing_folder,
    help="Write clouds.yaml here, with the passwords and the cloud's own CA (mode 0600).  [default: DIR/clouds.yaml]",
)
@click.option(
    "--database",
    metavar="URL",
    envvar="CUMULET_DATABASE",
    callback=without_password,
    help="Use this database: postgresql://... or sqlite:///FILE. A URL with a password goes into the environment "
    "variable CUMULET_DATABASE instead, where other users of the machine cannot see it.  [default: SQLite in DIR]",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=in_existing_folder,
    help="Write the cloud's URL here once it serves.",
)
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=in_existing_folder,
    help="Write the log here instead of to standard error; it is rotated and takes 576 MiB at most.",
)
@click.option("--bare", is_flag=True, help="Seed no flavors, image and networks at first start.")
@click.option(
    "--leave-guests", is_flag=True, help="Leave QEMU guests running when this stops; the next start finds them."
)
@click.option(
    "--policy-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Policy rules that differ from the defaults, as oslo.policy reads them.",
)
@click.option(
    "--host-network",
    "host_networks",
    type=HostNetworkType(),
    multiple=True,
    help="Receive guests that move to HOST on ADDRESS, with its agent and its guests in a network namespace of this "
    "machine where one is named. For each host that is not reached on the loopback address.",
)
@click.option(
    "--set",
    "settings",
    type=SettingType(),
    multiple=True,
    help="Change a setting, like migration_progress_timeout_seconds=60; a name that is none lists them all.",
)
@click.option("--simulated-speed", type=click.FloatRange(min=0.01), default=100.0, hidden=True)
def up(
    *,
    state: Path | None,
    listen: Listen,
    driver: Wish,
    hosts: int,
    clouds_file: Path | None,
    database: str | None,
    ready_file: Path | None,
    log_file: Path | None,
    bare: bool,
    leave_guests: bool,
    policy_file: Path | None,
    host_networks: tuple[tuple[str, HostNetwork], ...],
    settings: tuple[Setting, ...],
    simulated_speed: float,
) -> None:
    """Run a whole cloud - API, conductor and hosts - in the foreground until Ctrl-C.

    When it serves, it prints one line `ready https://ADDRESS:PORT/`. Then, in another terminal:

    \b
        export OS_CLIENT_CONFIG_FILE=~/.local/state/cumulet/clouds.yaml
        export OS_CLOUD=cumulet           # the administrator; OS_CLOUD=demo is a plain member
        openstack server create --flavor m1.nano --image cumulet-tiny --no-network --min 2 --max 2 --wait pair
        openstack server migrate --live-migration --host host2 --wait pair-1

    Everything is served on one HTTPS port with a certificate from the cloud's own CA, and on the loopback address
    unless you say otherwise. Passwords are random, made at the first start, and found in clouds.yaml only.
    """
    from cumulet.settings import Settings

    host_names = tuple(f"host{n}" for n in range(1, hosts + 1))
    networks = dict(host_networks)
    if unknown := sorted(set(networks) - set(host_names)):
        raise click.BadParameter(f"there is no host {unknown[0]!r}", param_hint="--host-network")
    choice = choose(driver)
    if networks and choice.driver == "simulated":
        raise click.BadParameter("simulated hosts have no network", param_hint="--host-network")
    folder = (state or state_folder.default()).absolute()
    chosen = Settings(
        state_dir=folder,
        database_url=database or f"sqlite:///{folder / 'cumulet.db'}",
        listen_address=listen.address,
        listen_port=listen.port,
        driver=choice.driver,
        host_names=host_names,
        host_networks=networks,
        bare=bare,
        policy_file=policy_file,
        simulated_speed=simulated_speed,
        **dict[str, Any](settings),
    )
    outputs = Outputs(
        clouds_file=(clouds_file or folder / "clouds.yaml").absolute(),
        ready_file=ready_file,
        log_file=log_file,
        why_driver=choice.why,
    )
    with state_folder.held(folder):
        asyncio.run(_serve(chosen, outputs, leave_guests=leave_guests))


async def _start(settings: Settings, log_file: Path | None) -> EmbeddedCloud:
    """What a user can mend is said in one line, and nothing else is."""
    from sqlalchemy.exc import ArgumentError, DBAPIError

    from cumulet.db.schema import SchemaTooNew
    from cumulet.owned import Exposed
    from cumulet.processes.all import EmbeddedCloud
    from cumulet.web.log import log_as_json, redact
    from cumulet.web.policy import PolicyError
    from cumulet.web.server import AddressTaken

    # On a terminal a line for every request would bury the one that matters.
    quiet = log_file is None and sys.stderr.isatty()
    handler = log_as_json(file=log_file, level=logging.WARNING if quiet else logging.INFO)
    try:
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(logging.getLogger().removeHandler, handler)
            cloud = await EmbeddedCloud.start(settings)
            on_failure.pop_all()
            return cloud
    except AddressTaken as error:
        raise click.ClickException(f"{error}; choose another place with --listen (port 0 picks a free one)") from error
    except PolicyError as error:
        raise click.BadParameter(" ".join(str(error).split()), param_hint="--policy-file") from None
    except (Exposed, SchemaTooNew) as error:
        raise click.ClickException(str(error)) from error
    except (ArgumentError, DBAPIError) as error:
        words = " ".join(str(getattr(error, "orig", None) or error).split())
        raise click.ClickException(redact(f"the database cannot be used: {words}")) from None


async def _serve(settings: Settings, outputs: Outputs, *, leave_guests: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    gc.disable()  # A start makes many objects and no garbage: collecting meanwhile takes a tenth of it.
    try:
        cloud = await _start(settings, outputs.log_file)
        gc.freeze()
    finally:
        gc.enable()
    # A list of a thousand servers makes ten thousand objects and no garbage; by default it is looked for ten times.
    gc.set_threshold(20_000, 20, 50)
    try:
        if outputs.clouds_file != settings.state_dir / "clouds.yaml":
            state_folder.write_private(outputs.clouds_file, cloud.clouds_yaml())
        url = f"{cloud.url}/"
        if outputs.ready_file is not None:
            state_folder.write_private(outputs.ready_file, url)
        if cloud.passwords.origin == "replaced":
            print(
                "clouds.yaml was lost: users admin and demo have new passwords, the old ones are void", file=sys.stderr
            )
        print(f"ready {url}", flush=True)
        print(
            f"hosts are {settings.driver} ({outputs.why_driver}); to use the cloud: "
            f"export OS_CLIENT_CONFIG_FILE={outputs.clouds_file} OS_CLOUD=cumulet",
            file=sys.stderr,
        )
        await stop.wait()
    finally:
        await cloud.stop(leave_guests=leave_guests)
