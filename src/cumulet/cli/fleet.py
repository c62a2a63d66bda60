"""`cumulet api`, `conductor` and `bus`: one role of a control plane each, beside others on one PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cumulet.cli import service_manager, state_folder
from cumulet.cli.configuration import DEFAULT_FILE, SettingType, checked_option, from_file, merged, require_ports_apart
from cumulet.cli.up import Listen, ListenType, database_trouble_told, without_password
from cumulet.signals import Stopped, unless, when_told_to_stop

if TYPE_CHECKING:
    from cumulet.settings import Settings

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
OptionsT = Callable[..., object]


def _shared(command: OptionsT) -> OptionsT:
    """Options of every role."""
    for option in (
        click.option("--set", "sets", type=SettingType(), multiple=True, help="Change a setting, as of `cumulet up`."),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"Settings, as of `cumulet up`.  [default: {DEFAULT_FILE}, if there is one]",
        ),
        click.option(
            "--database",
            metavar="URL",
            envvar="CUMULET_DATABASE",
            callback=without_password,
            help="The cloud's PostgreSQL: postgresql://...; with a password in the variable CUMULET_DATABASE. Default: "
            "the setting `database_url`.",
        ),
        click.option(
            "--state",
            required=True,
            type=FOLDER,
            metavar="DIR",
            help="The cloud's state folder, as `cumulet up` made it and all its processes share it.",
        ),
    ):
        command = option(command)
    return command


_own = click.option("--own", required=True, type=FOLDER, metavar="DIR", help="A folder of this process alone.")
_bus = click.option(
    "--bus", metavar="URL", help="The NATS servers: nats://ADDRESS:PORT, with commas. Default: the setting `bus`."
)
_health = click.option(
    "--health", type=ListenType(), metavar="ADDRESS:PORT", help="Answer /healthz and /readyz there, over HTTP."
)


def _listen(default: str) -> Callable[[OptionsT], OptionsT]:
    return click.option("--listen", type=ListenType(), default=default, show_default=True, help="Where to serve.")


@click.command(short_help="Serve the API, as one of several.")
@_shared
@_own
@_bus
@_listen("127.0.0.1:8774")
def api(
    state: Path,
    own: Path,
    database: str | None,
    bus: str | None,
    listen: Listen,
    config: Path | None,
    sets: tuple[tuple[str, Any], ...],
) -> None:
    """Serve the API of a cloud that `cumulet up --database postgresql://...` has made, beside its other processes."""
    from cumulet.processes.api import api_alone
    from cumulet.processes.parts import PARTS

    settings = _settings(state, database, config, sets, bus=bus, listen=listen)
    _require_bus(settings)
    require_ports_apart(settings)
    own = own.absolute()
    _run(api_alone(PARTS, settings, own), settings, lambda one: f"https://{listen.address}:{one.server.port}/", own)


@click.command(short_help="Carry long operations, as one of several.")
@_shared
@_bus
@_health
def conductor(
    state: Path,
    database: str | None,
    bus: str | None,
    health: Listen | None,
    config: Path | None,
    sets: tuple[tuple[str, object], ...],
) -> None:
    """Carry the long operations of a cloud, and look after its hosts while this one leads."""
    from cumulet.processes.conductor import conductor_alone
    from cumulet.processes.parts import PARTS

    settings = _settings(state, database, config, sets, bus=bus)
    _require_bus(settings)
    _run(conductor_alone(PARTS, settings, health=_place(health)), settings, lambda _one: "conductor")


@click.command(short_help="Run a NATS server for a cloud's hosts on other machines, or keep the users of yours.")
@_shared
@click.option("--own", type=FOLDER, metavar="DIR", help="A folder of this process alone.")
@_listen("127.0.0.1:4222")
@click.option(
    "--users-file",
    type=FILE,
    metavar="FILE",
    help="Run no server: keep the users of one of yours in this file, which its configuration includes.",
)
@click.option(
    "--pid-file", type=FILE, metavar="FILE", help="The server's own: with --users-file, it is told of changes."
)
@_health
def bus(
    state: Path,
    own: Path | None,
    database: str | None,
    listen: Listen,
    users_file: Path | None,
    pid_file: Path | None,
    health: Listen | None,
    config: Path | None,
    sets: tuple[tuple[str, Any], ...],
) -> None:
    """Run the NATS server that connects control planes and hosts on other machines, and tell it who they are.

    `cumulet up` alone needs none: it runs one of its own. With a NATS cluster of yours, run one of these beside each
    of its servers, with --users-file and --pid-file.
    """
    from cumulet.processes.bus import bus_alone, bus_users_alone

    if (own is None) == (users_file is None):
        raise click.UsageError(
            "either a server of the cloud's own (--own), or the users of one of yours (--users-file)."
        )
    if pid_file is not None and users_file is None:
        raise click.UsageError("--pid-file goes with --users-file.")
    served = Listen(listen.address, 0)
    settings = _settings(state, database, config, (*sets, ("bus_port", listen.port)), listen=served)
    if users_file is not None:
        kept = bus_users_alone(settings, users_file.absolute(), pid_file, health=_place(health))
        _run(kept, settings, lambda shown: f"{users_file}; certificate and key of the server: {shown}")
    elif own is not None:
        role = bus_alone(settings, own.absolute(), health=_place(health))
        _run(role, settings, lambda server: f"nats://{listen.address}:{server.port}", own.absolute())


def _place(health: Listen | None) -> tuple[str, int] | None:
    return None if health is None else (health.address, health.port)


def _require_bus(settings: Settings) -> None:
    if settings.bus is None:
        raise click.UsageError("where is the bus? Name it with --bus, or with the setting `bus` in the file.")


def _settings(
    state: Path,
    database: str | None,
    config: Path | None,
    sets: tuple[tuple[str, Any], ...],
    *,
    bus: str | None = None,
    listen: Listen | None = None,
) -> Settings:
    """The settings as `cumulet up` reads them, without its own ones (how many hosts, where clouds.yaml goes)."""
    from cumulet.settings import Settings

    options: dict[str, Any] = {
        "database_url": checked_option("--database", "database_url", database),
        "bus": checked_option("--bus", "bus", bus),
    }
    if listen is not None:
        options |= {"listen_address": listen.address, "listen_port": listen.port}
    known = {field.name for field in msgspec.structs.fields(Settings)}
    found = merged(options=options, sets=sets, file=from_file(config))
    given = {name: one.value for name, one in found.items() if name in known}
    if "database_url" not in given:
        raise click.UsageError("which database? Name it with --database, or `database_url` in the file.")
    folder = state.absolute()
    driver = state_folder.driver_of(folder)
    if driver is None:
        raise click.ClickException(f"there is no cloud in {folder}: start `cumulet up --state {folder}` first")
    given |= {"state_dir": folder, "driver": driver, "host_names": ()}
    return Settings(**given)


def _run(
    role: AbstractAsyncContextManager[Any], settings: Settings, named: Callable[[Any], str], own: Path | None = None
) -> None:
    """Run until SIGINT or SIGTERM. An error that a user can mend is one line. `own`: a folder of this process."""
    from cumulet.ca import BadCertificate
    from cumulet.db.schema import OtherState
    from cumulet.fleet.nats_server import NoNatsServer
    from cumulet.owned import Exposed
    from cumulet.part import SettingRefused
    from cumulet.web.log import end_log, log_as
    from cumulet.web.policy_language import PolicyError
    from cumulet.web.server import AddressTaken

    async def serve() -> None:
        stop = asyncio.Event()
        when_told_to_stop(stop.set)
        async with AsyncExitStack() as stack:
            try:
                one = await unless(stop, stack.enter_async_context(role))
            except Stopped:
                return
            print(f"ready {named(one)}", flush=True)
            service_manager.tell("READY=1")
            await stop.wait()
            service_manager.tell("STOPPING=1")

    try:
        with ExitStack() as at_the_end, database_trouble_told(), state_folder.room_told(settings.state_dir, own):
            at_the_end.callback(end_log, log_as(settings))
            asyncio.run(serve())
    except PolicyError as error:
        raise click.BadParameter(" ".join(str(error).split()), param_hint="policy_file") from None
    except (AddressTaken, BadCertificate, Exposed, NoNatsServer, OtherState, SettingRefused) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or ''} {error.strerror or error}".strip()) from error
