"""The parts of a request as the server passes them on (ASGI), and the address that the client used."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from cumulet.errors import BadRequest

Message = MutableMapping[str, Any]
Scope = Message
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?P<name>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?P<port>:[0-9]{1,5})?\Z", re.ASCII)


def base_url(scope: Scope, headers: Mapping[bytes, bytes]) -> str:
    """The URL that links begin with. The Host header counts only if it names the address that the request came to, or
    this machine: a client may write any other name there. `Settings.public_url` gives a cloud a name."""
    address, own_port = scope.get("server") or ("localhost", None)
    name, port = (f"[{address}]" if ":" in address else address), f":{own_port}" if own_port else ""
    asked = _HOST.match(headers.get(b"host", b"").decode("latin-1"))
    if asked is not None and asked["name"].strip("[]").lower() in _LOCAL_NAMES | {address}:
        name, port = asked["name"], asked["port"] or ""
    scheme: str = scope.get("scheme", "https")
    return f"{scheme}://{name}{port}"


def token_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The token a request carries: in OpenStack's header or, as clients of OAuth 2.0 send it, as a bearer's."""
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    return headers.get(b"x-auth-token") or (bearer.strip() if scheme.lower() == b"bearer" else b"")


def query_pairs(query_string: bytes) -> list[tuple[str, str]]:
    """Names and values, in their order. 400 if it is none, or has too many."""
    if not query_string:
        return []
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=200, separator="&"
        )
    except ValueError:
        raise BadRequest("Malformed query string") from None
    if any("\x00" in name or "\x00" in value for name, value in pairs):
        raise BadRequest("Malformed query string")
    return pairs
