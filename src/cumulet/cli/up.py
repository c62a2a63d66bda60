"""`cumulet up`: a whole cloud in one process, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cumulet.cli import service_manager, state_folder
from cumulet.cli.configuration import (
    DEFAULT_FILE,
    MOST_HOSTS,
    SEEN_BY_ALL,
    NotThus,
    SettingType,
    checked,
    checked_option,
    from_file,
    has_password,
    merged,
    require_ports_apart,
)
from cumulet.cli.driver_choice import Wish, choose
from cumulet.cli.host_network_option import HostNetworkType
from cumulet.cli.namespaces import image_trouble_told, in_namespaces, why_no_image
from cumulet.cli.not_here import NotHere, in_existing_folder, require_interface
from cumulet.signals import Stopped, unless, when_told_to_stop

if TYPE_CHECKING:
    from cumulet.processes.embedded_cloud import EmbeddedCloud
    from cumulet.settings import HostNetwork, Settings

DEFAULT_LISTEN = "127.0.0.1:8774"
DEFAULT_HOSTS = 2
NEW_PASSWORDS = (
    "this cloud had no clouds.yaml (it was lost, or the first start ended before it was written): users admin and demo "
    "have new passwords, and any of before are void"
)


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
        try:
            return Listen(checked("listen_address", address, text=True), int(port))
        except NotThus as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def without_password(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a URL with a password on the command line, which every user of the machine sees."""
    named_here = (
        param.name is not None and ctx.get_parameter_source(param.name) is click.core.ParameterSource.COMMANDLINE
    )
    if value is not None and named_here and has_password(value):
        raise click.BadParameter(SEEN_BY_ALL, ctx, param)
    return value


@contextlib.contextmanager
def database_trouble_told() -> Iterator[None]:
    """Turn the error of a database that cannot be used into one line, without its password."""
    from sqlalchemy.exc import ArgumentError, DBAPIError

    from cumulet.web.log import redact

    try:
        yield
    except (ArgumentError, DBAPIError) as error:
        words = " ".join(str(getattr(error, "orig", None) or error).split())
        raise click.ClickException(redact(f"the database cannot be used: {words}")) from None


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` writes: the file of credentials, the file with the URL once it serves, why this driver was chosen."""

    clouds_file: Path
    ready_file: Path | None
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
    help=f"Serve HTTPS here. Port 0 picks a free one.  [default: {DEFAULT_LISTEN}]",
)
@click.option(
    "--driver",
    type=click.Choice(["auto", "simulated", "qemu"]),
    help="What hosts run: real QEMU guests, or simulated ones. auto (the default): what the state was made with, else "
    "QEMU where it is installed, or where all hosts are other machines (--hosts 0).",
)
@click.option(
    "--hosts",
    type=click.IntRange(0, MOST_HOSTS),
    metavar="N",
    help=f"How many hosts this machine has, called host1, host2, ...; real ones share what it has.  "
    f"[default: {DEFAULT_HOSTS}]",
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
    "--bus",
    metavar="URL",
    help="Reach hosts on other machines over these NATS servers: nats://ADDRESS:PORT, several with commas between.  "
    "[default: a server of the cloud's own, once a machine joins]",
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
@click.option("--bare", is_flag=True, default=None, help="Seed no flavors, image and networks at first start.")
@click.option(
    "--leave-guests/--stop-guests",
    default=None,
    help="Leave QEMU guests running when this stops, to be found by the next start.  [default: stop them, but for a "
    "service of systemd]",
)
@click.option(
    "--policy-file",
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
    "--public-interface",
    metavar="NAME",
    help="Let the network `public`, and so floating IPs, go on through this interface. It must be one that the machine "
    "does not use itself; with --host-network, it is one of each host's namespace.",
)
@click.option(
    "--set",
    "settings",
    type=SettingType(),
    multiple=True,
    help="Change a setting, like migration_progress_timeout_seconds=60; a name that is none lists them all.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Settings from this TOML file; `cumulet settings` shows them.  [default: {DEFAULT_FILE}, if there is one]",
)
@click.option("--simulated-speed", type=click.FloatRange(min=0.01), hidden=True)
def up(
    *,
    state: Path | None,
    listen: Listen | None,
    driver: Wish | None,
    hosts: int | None,
    clouds_file: Path | None,
    database: str | None,
    bus: str | None,
    ready_file: Path | None,
    log_file: Path | None,
    bare: bool | None,
    leave_guests: bool | None,
    policy_file: str | None,
    host_networks: tuple[tuple[str, HostNetwork], ...],
    public_interface: str | None,
    settings: tuple[tuple[str, object], ...],
    config: Path | None,
    simulated_speed: float | None,
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
    given = merged(
        options={
            "state_dir": state,
            "listen_address": listen and listen.address,
            "listen_port": listen and listen.port,
            "driver": driver,
            "hosts": hosts,
            "clouds_file": clouds_file,
            "database_url": checked_option("--database", "database_url", database),
            "bus": checked_option("--bus", "bus", bus),
            "bare": bare,
            "leave_guests": leave_guests,
            "policy_file": checked_option("--policy-file", "policy_file", policy_file),
            "log_file": log_file and log_file.absolute(),
            "host_networks": dict(host_networks) or None,
            "public_interface": checked_option("--public-interface", "public_interface", public_interface),
            "simulated_speed": simulated_speed,
        },
        sets=settings,
        file=from_file(config),
    )
    chosen, outputs = _chosen({name: one.value for name, one in given.items()}, ready_file)
    chosen, networks = in_namespaces(chosen)
    if chosen.public_interface is not None and chosen.host_names and not chosen.host_networks:
        # Before anything is started, which a failed start would end again, at each try of systemd.
        require_interface("--public-interface", chosen.public_interface)
    with state_folder.held(chosen.state_dir):
        asyncio.run(_serve(chosen, outputs, networks))


def _chosen(given: dict[str, Any], ready_file: Path | None) -> tuple[Settings, Outputs]:
    """All settings, with defaults for those not given, checked against each other."""
    from cumulet.settings import Settings

    folder = (given.pop("state_dir", None) or state_folder.default()).absolute()
    host_names = tuple(f"host{n}" for n in range(1, given.pop("hosts", DEFAULT_HOSTS) + 1))
    if unknown := sorted(set(given.get("host_networks", ())) - set(host_names)):
        raise click.BadParameter(f"there is no host {unknown[0]!r}", param_hint="--host-network")
    made_with = state_folder.driver_of(folder)
    choice = choose(given.pop("driver", "auto"), hosts_here=bool(host_names), made_with=made_with)
    for setting, option in (("host_networks", "--host-network"), ("public_interface", "--public-interface")):
        if given.get(setting) and choice.driver == "simulated":
            if choice.for_want_of_qemu:
                raise NotHere(f"{option}: simulated hosts have no network, and for real ones {choice.why}")
            raise click.BadParameter("simulated hosts have no network", param_hint=option)
    clouds_file = given.pop("clouds_file", None) or folder / "clouds.yaml"
    given.setdefault("database_url", f"sqlite:///{folder / 'cumulet.db'}")
    given.setdefault("leave_guests", service_manager.started_us())
    settings = Settings(state_dir=folder, driver=choice.driver, host_names=host_names, **given)
    if (settings.tls_certificate_file is None) != (settings.tls_key_file is None):
        raise click.BadParameter("tls_certificate_file and tls_key_file need each other", param_hint="settings")
    require_ports_apart(settings)
    return settings, Outputs(clouds_file=clouds_file.absolute(), ready_file=ready_file, why_driver=choice.why)


async def _start(settings: Settings) -> EmbeddedCloud:
    """Start the cloud. An error that a user can mend becomes one line."""
    from cumulet.ca import BadCertificate
    from cumulet.db.schema import OtherState, SchemaTooNew
    from cumulet.fleet.public_network import NotPublic
    from cumulet.owned import Exposed
    from cumulet.part import SettingRefused
    from cumulet.processes.all import start_cloud
    from cumulet.web.log import end_log, log_as
    from cumulet.web.policy_language import PolicyError
    from cumulet.web.server import AddressTaken

    try:
        told = state_folder.room_told(settings.state_dir)
        with database_trouble_told(), image_trouble_told(), told, contextlib.ExitStack() as on_failure:
            # On a terminal, a line for every request would hide the important ones.
            on_failure.callback(end_log, log_as(settings, on_terminal="warning"))
            cloud = await start_cloud(settings)
            on_failure.pop_all()
            return cloud
    except AddressTaken as error:
        raise click.ClickException(f"{error}; choose another place with --listen (port 0 picks a free one)") from error
    except PolicyError as error:
        raise click.BadParameter(" ".join(str(error).split()), param_hint="--policy-file") from None
    except NotPublic as error:
        raise NotHere(f"--public-interface: {error}") from None
    except (BadCertificate, Exposed, OtherState, SchemaTooNew, SettingRefused) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            words = f"this machine has no address {settings.listen_address}; choose another place with --listen"
            raise click.ClickException(words) from error
        place = f"{error.filename}: " if error.filename is not None else ""
        raise click.ClickException(f"{place}{error.strerror or error}") from error


SWITCH_SECONDS = 0.0005


async def _serve(settings: Settings, outputs: Outputs, networks: str | None) -> None:
    stop = asyncio.Event()
    when_told_to_stop(stop.set)
    no_image = why_no_image(settings)
    gc.disable()  # A start makes many objects and no garbage: the collector would take a tenth of its time.
    try:
        cloud = await unless(stop, _start(settings))
        gc.freeze()
    except Stopped:
        return
    finally:
        gc.enable()
    # A list of 1,000 servers makes 10,000 objects and no garbage; by default the collector would run ten times.
    gc.set_threshold(20_000, 20, 50)
    # The longest wait of the answering thread for a thread that computes. Python's default is ten times longer.
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        if outputs.clouds_file != settings.state_dir / "clouds.yaml":
            state_folder.write_private(outputs.clouds_file, cloud.clouds_yaml())
        url = f"{cloud.url}/"
        if outputs.ready_file is not None:
            state_folder.write_private(outputs.ready_file, url)
        if cloud.passwords.origin == "replaced":
            print(NEW_PASSWORDS, file=sys.stderr)
        print(f"ready {url}", flush=True)
        print(
            f"hosts are {settings.driver} ({outputs.why_driver}); to use the cloud: "
            f"export OS_CLIENT_CONFIG_FILE={outputs.clouds_file} OS_CLOUD=cumulet",
            file=sys.stderr,
        )
        if no_image is not None:
            print(f"there is no image cumulet-tiny: {no_image}", file=sys.stderr)
        if networks is not None:
            print(networks, file=sys.stderr)
        if cloud.reach is not None:
            print(cloud.reach, file=sys.stderr)
        service_manager.tell("READY=1")
        await stop.wait()
        service_manager.tell("STOPPING=1")
    finally:
        await cloud.stop()
