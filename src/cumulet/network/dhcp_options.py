"""Further DHCP options of a port: ``extra_dhcp_opts``, by name and IP version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Annotated, TypedDict

import sqlalchemy as sa

from cumulet.db.engine import Tx, metadata
from cumulet.db.parts import OfMany
from cumulet.errors import BadRequest, OverQuota
from cumulet.network import limits
from cumulet.network.addresses import of_port
from cumulet.network.bodies import Number, either
from cumulet.network.dhcp_option_codes import NotAnOption, encoded, require_option
from cumulet.network.store import Port, erase, inserting, must_get, ports
from cumulet.web.schema import UNSET, Body, Json, Unset

port_dhcp_options = sa.Table(
    "port_dhcp_options",
    metadata,
    sa.Column("port_id", sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("opt_name", sa.String(64), primary_key=True),
    sa.Column("ip_version", sa.Integer, primary_key=True),
    sa.Column("opt_value", sa.String(255), nullable=False),
)

MAX_OPTIONS = 32
"""The most options that one request may name, and that a port may have."""
BYTES_OF_A_PORT = 300
"""Of the values of its options, and `_MORE` for each: for each port of a project's quota. They stand in the wirings of
hosts, of which each is one message and has a bound. A port with less is never refused."""
_MORE = 20
MAY_BE_BLANK = ("router", "classless-static-route")
"""Options whose empty value has a meaning: the option is not sent."""


class DhcpOption(Body):
    opt_name: Annotated[str, Json({"minLength": 1, "maxLength": 64, "pattern": r"^[^\s\x00-\x1f\x7f](.*\S)?$"})]
    opt_value: Annotated[str | None, Json({"maxLength": 255})]
    ip_version: Number | Unset = UNSET


DhcpOptions = Annotated[list[DhcpOption], Json({"maxItems": MAX_OPTIONS})]
Wanted = dict[tuple[str, int], str | None]


def wanted_of(given: object) -> Wanted:
    """The values by option name and IP version. None: the option is to be removed."""
    options: Sequence[DhcpOption] = either(given, None) or []
    wanted: Wanted = {}
    for option in options:
        version, value = either(option.ip_version, 4), option.opt_value
        if version not in (4, 6):
            raise _invalid(f"ip_version '{version}' is not in [4, 6]")
        if value is not None and any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise _invalid(f"the value of {option.opt_name} is no line")
        if value == "" and option.opt_name not in MAY_BE_BLANK:
            raise _invalid(f"the value of {option.opt_name} is blank")
        if (option.opt_name, version) in wanted:
            raise _invalid(f"{option.opt_name} is given twice")
        if value is not None:
            with _refusing():
                require_option(option.opt_name, version)
        wanted[option.opt_name, version] = value
    return wanted


def _invalid(why: object) -> BadRequest:
    return BadRequest(f"Invalid input for extra_dhcp_opts. Reason: {why}.")


@contextmanager
def _refusing() -> Iterator[None]:
    """400 for a name that is no option, or a value that it cannot have."""
    try:
        yield
    except NotAnOption as wrong:
        raise _invalid(wrong) from None


def change(tx: Tx, port_id: str, wanted: Wanted, *, moved: bool = False, new: bool = False) -> bool:
    """Set these options and leave the others. True if one has changed.

    400 for a value that cannot be sent. As upstream, an option of an IP version of which the port has no address is
    kept with any value; the port then cannot get an address of that version.

    moved: the port's addresses have changed, so the present options are checked too. new: the port is being made, and
    its request checks with `check_new` once all its ports are.
    """
    present: Wanted = {
        (o["opt_name"], o["ip_version"]): o["opt_value"] for o in of_ports(tx, [port_id]).get(port_id, [])
    }
    changes = {key: value for key, value in wanted.items() if present.get(key) != value}
    left = sum(value is not None for value in (present | changes).values())
    if left > MAX_OPTIONS:
        raise _invalid(f"a port has at most {MAX_OPTIONS} options")
    versions = {ip_address(f.address).version for f in of_port(tx, port_id) if f.address}
    for (name, version), value in ((present | changes) if moved else changes).items():
        if value is not None and (not versions or version in versions):
            with _refusing():
                encoded(name, value, version)
    for name, version in changes.keys() & present.keys():
        erase(tx, port_dhcp_options, port_id=port_id, opt_name=name, ip_version=version)
    rows = [
        {"port_id": port_id, "opt_name": name, "ip_version": version, "opt_value": value}
        for (name, version), value in changes.items()
        if value is not None
    ]
    if rows:
        tx.execute(inserting(port_dhcp_options), rows)
    if not new and _bytes((present | changes).values()) > max(_bytes(present.values()), BYTES_OF_A_PORT):
        _refuse_too_long(tx, must_get(tx, Port, port_id).project_id)
    return bool(changes)


def check_new(tx: Tx, port_ids: Sequence[str]) -> None:
    """409 where ports that one request has made have many options, and all ports of their project too many."""
    many = [
        one for one, held in of_ports(tx, port_ids).items() if _bytes(o["opt_value"] for o in held) > BYTES_OF_A_PORT
    ]
    for project_id in sorted({must_get(tx, Port, port_id).project_id for port_id in many}):
        _refuse_too_long(tx, project_id)


def _bytes(values: Iterable[str | None]) -> int:
    return sum(len(value.encode()) + _MORE for value in values if value is not None)


def _refuse_too_long(tx: Tx, project_id: str) -> None:
    """409 where the options of all ports of a project are too long together."""
    quota = limits.limits_of(tx, project_id)["port"]
    most = BYTES_OF_A_PORT * quota
    if quota >= 0 and _held(tx, project_id) > most:
        raise OverQuota(
            f"The extra_dhcp_opts of a project's ports have at most {most} bytes together, {_MORE} more for each "
            f"counted: {BYTES_OF_A_PORT} for each port of the quota.",
            reason="QUOTA",
        )


def _held(tx: Tx, project_id: str) -> int:
    """As `_bytes`, of all ports of the project."""
    value = _options.opt_value
    postgresql = tx.connection.dialect.name == "postgresql"
    size = sa.func.octet_length(value) if postgresql else sa.func.length(sa.cast(value, sa.LargeBinary))
    asked = sa.select(sa.func.sum(size + _MORE)).join(ports, ports.c.id == _options.port_id)
    return int(tx.scalar(asked.where(ports.c.project_id == project_id)) or 0)


class Shown(TypedDict):
    """An option as the API shows it."""

    opt_name: str
    opt_value: str
    ip_version: int


def of_ports(tx: Tx, port_ids: Sequence[str]) -> dict[str, list[Shown]]:
    """The options of many ports as the API shows them, by name."""
    found: dict[str, list[Shown]] = {}
    for port_id, name, value, version in map(tuple, _OF_PORTS.rows(tx, port_ids)):
        found.setdefault(port_id, []).append({"opt_name": name, "opt_value": value, "ip_version": version})
    return found


_options = port_dhcp_options.c
_OF_PORTS = OfMany(
    sa.select(_options.port_id, _options.opt_name, _options.opt_value, _options.ip_version).order_by(
        _options.opt_name, _options.ip_version
    ),
    _options.port_id,
)
