"""Settings come from options, `--set NAME=VALUE` and a TOML file. All three have the same names and checks."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import re
import textwrap
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import parse_qsl, urlsplit

import click
import msgspec

from cumulet.cli.host_network_option import HostNetworkType
from cumulet.cli.not_here import NotHere, require_folder_of
from cumulet.settings import Settings

DEFAULT_FILE = Path("/etc/cumulet/cumulet.toml")
LARGEST_FILE = 1 << 20
"""Bytes of a configuration file."""
MOST_HOSTS = 10_000
SEEN_BY_ALL = (
    "a password on the command line is seen by every user of this machine; set CUMULET_DATABASE to the URL instead, or "
    "leave the password to ~/.pgpass"
)


class Extra(msgspec.Struct):
    """Settings of the command, beside those of the cloud."""

    driver: Literal["auto", "simulated", "qemu"] = "auto"
    """What hosts run: real QEMU guests, or simulated ones; auto: what the state was made with, else QEMU where it is
    installed."""
    hosts: Annotated[int, msgspec.Meta(ge=0, le=MOST_HOSTS)] = 2
    """How many hosts there are, called host1, host2, ..."""
    clouds_file: Path | None = None
    """Where clouds.yaml is written, with the passwords (mode 0600); default: in the state folder."""


class Given(msgspec.Struct, frozen=True):
    """A setting's value, checked, and where it was set: ``--set``, ``/etc/cumulet/cumulet.toml line 3``."""

    value: Any
    where: str


class Described(msgspec.Struct, frozen=True):
    """A setting as the program declares it: its type, its default, what it means."""

    type: Any
    default: Any
    meaning: str


@functools.cache
def described() -> dict[str, Described]:
    """Every setting by its name, in the order in which they are declared."""
    found: dict[str, Described] = {}
    for struct in (Settings, Extra):
        meanings, types = _meanings(struct), get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            default = None if field.required else field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            found[field.name] = Described(types[field.name], default, meanings.get(field.name, ""))
    del found["host_names"]
    return found


def _meanings(struct: type) -> dict[str, str]:
    """The docstring below each field, read from the source: Python does not keep it in the class."""
    [declared] = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(declared, ast.ClassDef)
    found: dict[str, str] = {}
    for field, words in zip(declared.body, declared.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(words, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(words.value)).replace("``", "`").split())
    return found


class NotThus(Exception):
    """There is no such setting, or it cannot have this value. The message says what is possible."""


def checked(name: str, value: Any, *, text: bool) -> Any:
    """`value`, converted for the setting `name`. `text`: it is text, also for a number. Raises `NotThus`,
    and `NotHere` for what this machine lacks now."""
    known = described()
    if name not in known:
        raise NotThus(f"there is no setting {name!r}; there are {', '.join(known)}")
    if name == "host_networks":
        return _host_networks(value)
    try:
        setting = msgspec.convert(value, known[name].type, strict=not text, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise NotThus(_in_words(known[name], str(error))) from None
    if name == "listen_address":
        _check_address(setting)
    if name == "database_url":
        _check_database(setting)
    if name == "password_regex":
        _check_pattern(setting)
    if name == "public_interface":
        _check_interface(setting)
    if isinstance(setting, Path):
        setting = setting.expanduser().absolute()
        _check_path(name, setting)
    return setting


def checked_option(option: str, setting: str, value: str | None) -> Any:
    """An option's value, checked as that of a setting. None, where it is not given."""
    try:
        return None if value is None else checked(setting, value, text=True)
    except NotThus as error:
        raise click.BadParameter(str(error), param_hint=option) from None
    except NotHere as lack:
        raise lack.at(option) from None


def _in_words(setting: Described, said: str) -> str:
    """What is expected, where the checker's own message names a pattern or no choices."""
    if "regex" in said:
        return f"expected this form: {re.split(r'[:.] ', setting.meaning)[0]}"
    if "enum" in said:
        choices = [choice for kind in (setting.type, *get_args(setting.type)) for choice in get_args(kind)]
        return f"expected one of {', '.join(choice for choice in choices if isinstance(choice, str))}"
    match msgspec.inspect.type_info(setting.type):
        case msgspec.inspect.IntType(ge=int(least), le=int(most)) if "=" in said:
            return f"expected a number from {least} to {most}"
        case msgspec.inspect.FloatType(le=int(most)) if "<=" in said or "out of range" in said:
            return f"expected a number up to {most}"
    return said


def _check_address(address: str) -> None:
    try:
        ip_address(address)
    except ValueError:
        raise NotThus(f"{address!r} is no IP address, like 127.0.0.1, or 0.0.0.0 for all of this machine") from None


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise msgspec.ValidationError("Expected the path of a file")


def _host_networks(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise NotThus('expected a table, like { host1 = "192.0.2.1" }; on the command line use --host-network')
    try:
        return dict(HostNetworkType().convert(f"{host}={place}", None, None) for host, place in value.items())
    except click.UsageError as error:
        raise NotThus(error.message) from None


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise NotThus(f"expected a regular expression: {error}") from None


def _check_interface(name: str | None) -> None:
    """The kernel's own rule. A name within it may be that of an interface which comes later."""
    if name is not None and (len(os.fsencode(name)) > 15 or not re.fullmatch(r"(?!\.\.?\Z)[^\s/:\0]+", name)):
        raise NotThus(f"{name!r} is no name of an interface: 1 to 15 characters, without spaces, `/` and `:`")


def _check_database(url: str) -> None:
    scheme, separator, rest = url.partition("://")
    if scheme not in ("sqlite", "postgresql") or not separator:
        raise NotThus(f"there is no database {scheme!r}; use postgresql://USER:PASSWORD@HOST/NAME or sqlite:///FILE")
    if scheme == "sqlite":
        if not rest.startswith("/") or len(rest) < 2 or rest.endswith("/"):
            raise NotThus("name a file: sqlite:///FILE, or sqlite:////FILE from the root on")
        file = Path(rest[1:])
        _check_written(file)


def has_password(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False  # It is no URL; opening the database will say so.
    return parts.password is not None or any(name == "password" for name, _ in parse_qsl(parts.query))


_READ = {"policy_file", "tls_certificate_file", "tls_key_file", "tls_authority_file"}
_WRITTEN = {"clouds_file", "log_file"}


def _check_path(name: str, path: Path) -> None:
    if name in _READ:
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            words = f"cannot read {path}: {error.strerror}"
            raise NotThus(words) if isinstance(error, IsADirectoryError) else NotHere(words) from None
    if name in _WRITTEN:
        _check_written(path)


def _check_written(path: Path) -> None:
    if os.path.isdir(path):
        raise NotThus(f"{path} is a folder")
    require_folder_of(path)


def from_file(path: Path | None) -> dict[str, Given]:
    """The settings in a TOML file; None: the default one, if there is one. Errors name the file and the line."""
    if path is None and not DEFAULT_FILE.exists():
        return {}
    path = path or DEFAULT_FILE
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except IsADirectoryError as error:
        raise click.BadParameter(f"cannot read {path}: {error.strerror}", param_hint="--config") from None
    except OSError as error:
        raise NotHere(f"--config: cannot read {path}: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise click.BadParameter(f"{path} is larger than {LARGEST_FILE} bytes", param_hint="--config")
    try:
        text = content.decode()
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise click.BadParameter(f"{path} line {line}: not UTF-8", param_hint="--config") from None
    except tomllib.TOMLDecodeError as error:
        raise click.BadParameter(_toml_words(path, text, str(error)), param_hint="--config") from None
    found: dict[str, Given] = {}
    for name, value in values.items():
        where = f"{path} line {_line_of(name, text)}"
        try:
            found[name] = Given(checked(name, value, text=False), where)
        except NotThus as error:
            raise click.BadParameter(f"{where}: {name}: {error}", param_hint="--config") from None
        except NotHere as lack:
            raise lack.at(f"{where}: {name}") from None
        if name == "database_url" and has_password(value) and path.stat().st_mode & 0o007:
            raise click.BadParameter(
                f"{where}: everybody can read this password: chmod o= {path}", param_hint="--config"
            )
    return found


def _toml_words(path: Path, text: str, words: str) -> str:
    """The parser says ``... (at line 3, column 9)``, or ``(at end of document)``."""
    at = re.search(r"\(at line (\d+), column \d+\)", words)
    line = at[1] if at else str(text.count("\n") + 1)
    return f"{path} line {line}: {re.sub(r' *[(]at .*[)]', '', words)}"


def _line_of(name: str, text: str) -> int:
    key = re.compile(rf"""\s*(\[\s*)?["']?{re.escape(name)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if key.match(line)), 1)


def require_ports_apart(settings: Settings) -> None:
    """A process cannot listen twice where it listens. Port 0 is another one each time."""
    ports = {"listen_port (--listen)": settings.listen_port, "hosts_port": settings.hosts_port}
    if settings.bus is None:
        ports["bus_port"] = settings.bus_port
    named: dict[int, str] = {}
    for name, port in ports.items():
        if port and port in named:
            raise click.UsageError(f"{named[port]} and {name} are both {port}: each needs a port of its own")
        named[port] = name


class SettingType(click.ParamType[tuple[str, Any]]):
    """``NAME=VALUE``, any setting."""

    name = "NAME=VALUE"

    def convert(
        self, value: str | tuple[str, Any], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, _, text = value.partition("=")
        if name == "database_url" and has_password(text):
            self.fail(SEEN_BY_ALL, param, ctx)
        try:
            return name, checked(name, text, text=True)
        except NotThus as error:
            self.fail(str(error) if name not in described() else f"{value!r}: {error}", param, ctx)
        except NotHere as lack:
            raise lack.at(f"--set {value}") from None


def merged(
    *, options: Mapping[str, Any], sets: tuple[tuple[str, Any], ...], file: Mapping[str, Given]
) -> dict[str, Given]:
    """The settings given. An option overrides `--set`, and that overrides the file. Options not given are None."""
    found = dict(file)
    found |= {name: Given(value, "--set") for name, value in sets}
    found |= {name: Given(value, "an option") for name, value in options.items() if value is not None}
    return found
