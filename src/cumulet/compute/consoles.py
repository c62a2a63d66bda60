"""Addresses of serial consoles and screens: each is good once, for a minute, for one guest as it is now.

Only a digest of its secret is kept. It is bound to the server's generation, so it does not reach a guest that was
started anew, stopped or moved since. `console_door` takes it.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute.model import PowerState, Server
from cumulet.compute.rules import ADMIN, MEMBER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.store import get_server
from cumulet.db.engine import Select, Tx, metadata
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Anything, Body, Versions

CONSOLES = rule("os_compute_api:os-remote-consoles", MEMBER)
TOKENS = rule("os_compute_api:os-console-auth-tokens", ADMIN)

TOKEN_SECONDS = 60
TOKENS_OF_A_SERVER = 20
"""The most unused addresses of a server at once; a further one replaces the oldest."""
SECRET_BYTES = 32
DOOR = "/console/"
SERIAL, VNC = "serial", "vnc"
_TYPES = {SERIAL: "serial", VNC: "novnc"}
"""By protocol that is offered: its one type."""
_MALFORMED = "The server could not comply with the request since it is either malformed or otherwise incorrect."

console_tokens = sa.Table(
    "console_tokens",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("server_id", sa.String(36), nullable=False),
    sa.Column("protocol", sa.String(16), nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("expires_at_us", sa.BigInteger, nullable=False, index=True),
    sa.Index("ix_console_tokens_server_id", "server_id", "expires_at_us"),
)

_Protocol = Literal["vnc", "spice", "serial", "rdp"]
_Type = Literal["novnc", "xvpvnc", "spice-html5", "serial", "rdp-html5"]


class RemoteConsole(Body):
    protocol: Annotated[str, Versions(("2.6", _Protocol), ("2.8", _Protocol | Literal["mks"]))]
    type: Annotated[
        str,
        Versions(
            ("2.6", _Type), ("2.8", _Type | Literal["webmks"]), ("2.99", _Type | Literal["webmks", "spice-direct"])
        ),
    ]


class CreateRemoteConsole(Body):
    remote_console: RemoteConsole


class VncConsole(Body):
    type: Literal["novnc", "xvpvnc"]


class SerialConsole(Body):
    type: Literal["serial"]


class SpiceConsole(Body):
    type: Literal["spice-html5"]


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """The session that an address leads to."""

    server: Server
    user_id: str


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/remote-consoles",
    rules=(Rule(CONSOLES),),
    target=server_in_sight,
    body=CreateRemoteConsole,
    since="2.6",
)
def create_remote_console(call: Call[Server, CreateRemoteConsole]) -> dict[str, dict[str, str]]:
    """Get the address of a console: serial, or a screen."""
    asked = call.body.remote_console
    if asked.protocol == "rdp":
        raise BadRequest("Unavailable console type rdp.")
    if asked.protocol not in _TYPES:
        raise BadRequest(f"Unavailable console type {asked.type}.")
    url = _address(call, asked.protocol, asked.type)
    return {"remote_console": {"protocol": asked.protocol, "type": asked.type, "url": url}}


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="os-getSerialConsole",
    rules=(Rule(CONSOLES),),
    target=server_in_sight,
    body=SerialConsole,
    until="2.5",
)
def get_serial_console(call: Call[Server, SerialConsole]) -> dict[str, dict[str, str]]:
    """Get the address of a server's serial console."""
    return {"console": {"type": call.body.type, "url": _address(call, SERIAL, call.body.type)}}


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="os-getVNCConsole",
    rules=(Rule(CONSOLES),),
    target=server_in_sight,
    body=VncConsole,
    until="2.5",
)
def get_vnc_console(call: Call[Server, VncConsole]) -> dict[str, dict[str, str]]:
    """Get the address of a server's screen."""
    return {"console": {"type": call.body.type, "url": _address(call, VNC, call.body.type)}}


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="os-getSPICEConsole",
    rules=(Rule(CONSOLES),),
    target=server_in_sight,
    body=SpiceConsole,
    until="2.5",
)
def get_spice_console(call: Call[Server, SpiceConsole]) -> None:
    """Refused: a server's screen is reached by VNC."""
    raise BadRequest(f"Unavailable console type {call.body.type}.")


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="os-getRDPConsole",
    rules=(Rule(CONSOLES),),
    target=server_in_sight,
    body=Anything,
    until="2.5",
)
def get_rdp_console(call: Call[Server, Anything]) -> None:
    """Refused, as by Nova since it has no driver with RDP."""
    raise BadRequest(_MALFORMED)


@COMPUTE.operation("GET", "/os-console-auth-tokens/{console_token}", rules=(Rule(TOKENS),))
def show_console_token(call: Call[None, None]) -> dict[str, object]:
    """Show which server an unused console token leads to. No host listens for it, so it names no port."""
    if not call.version.at_least("2.31"):
        raise BadRequest(_MALFORMED)
    row = call.tx.first(_valid(call.path["console_token"], call.now_us))
    if row is None:
        raise NotFound("Token not found")
    server = get_server(call.tx, row.server_id)
    return {
        "console": {
            "instance_uuid": server.id,
            "host": server.host,
            "port": None,
            "internal_access_path": None,
        }
    }


def _address(call: Call[Server, object], protocol: str, kind: str) -> str:
    """The address: as upstream, a WebSocket (wss) for the serial console and a page (https) for a screen."""
    server = call.target
    if kind != _TYPES[protocol]:
        raise BadRequest(f"Invalid console type {kind}")
    if not has_console(server):
        raise Conflict(f"Instance {server.id} is not ready", reason="NOT_READY")
    if protocol == VNC and not (server.guest or {}).get("screen"):  # Its guest was described before guests had screens.
        raise BadRequest(f"Unavailable console type {kind}.")
    token = issue(call.tx, call.cloud.clock, server, call.caller.user_id, protocol)
    line = f"{DOOR}{protocol}?token={token}"
    if protocol == SERIAL:
        return call.base_url.replace("http", "ws", 1) + line
    # As upstream's address of noVNC: the page, and in `path` where its WebSocket is.
    return f"{call.base_url}{DOOR}{protocol}?{urlencode({'path': line.lstrip('/')})}"


def has_console(server: Server) -> bool:
    """Whether its guest has a process, as far as is known. Nova asks only for a host: rescued servers have consoles."""
    return server.host is not None and server.power_state in (PowerState.RUNNING, PowerState.PAUSED)


# -- tokens


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def issue(tx: Tx, clock: Clock, server: Server, user_id: str, protocol: str = SERIAL) -> str:
    """Make a new address. Expired ones are removed, and the server's oldest beyond its share."""
    now = clock.now_us()
    tx.execute(sa.delete(console_tokens).where(console_tokens.c.expires_at_us <= now))
    held = tx.all(
        sa.select(console_tokens.c.digest)
        .where(console_tokens.c.server_id == server.id)
        .order_by(console_tokens.c.expires_at_us.desc(), console_tokens.c.digest)
        .offset(TOKENS_OF_A_SERVER - 1)
    )
    if held:
        tx.execute(sa.delete(console_tokens).where(console_tokens.c.digest.in_([row.digest for row in held])))
    token = base64.urlsafe_b64encode(clock.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    row = {
        "digest": digest(token),
        "server_id": server.id,
        "protocol": protocol,
        "generation": server.generation,
        "user_id": user_id,
        "expires_at_us": now + TOKEN_SECONDS * 1_000_000,
    }
    tx.execute(sa.insert(console_tokens), row)
    return token


def redeem(tx: Tx, token: str, now_us: int, protocol: str) -> Ticket | None:
    """Use an address up. None if it was not given for this, was used, has expired, or its guest has changed."""
    row = tx.first(_valid(token, now_us).where(console_tokens.c.protocol == protocol))
    if row is None or not tx.changed(_USE, {"of_digest": row.digest}):
        return None
    server = get_server(tx, row.server_id, deleted=True)
    if server.deleted_at_us is not None or server.generation != row.generation:
        return None
    return Ticket(server=server, user_id=row.user_id)


def forget(tx: Tx, server_id: str) -> None:
    """Remove the addresses of a server that is deleted."""
    tx.run(_FORGET, {"of_server": server_id})


_FORGET = sa.delete(console_tokens).where(console_tokens.c.server_id == sa.bindparam("of_server"))
_USE = sa.delete(console_tokens).where(console_tokens.c.digest == sa.bindparam("of_digest"))


def _valid(token: str, now_us: int) -> Select:
    return sa.select(console_tokens).where(
        console_tokens.c.digest == digest(token), console_tokens.c.expires_at_us > now_us
    )
