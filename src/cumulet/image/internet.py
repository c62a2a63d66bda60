"""Fetching from the Internet for a caller, who must not reach anything else by it.

A URL must have the name of a host that the operator allows, and port 80 or 443. The name is resolved once. Each of its
addresses must be public and not one of this machine. The connection is made to an address that was checked, not to the
name, so it does not matter what the name resolves to later. A redirection is checked in the same way. A URL with an
address instead of a name is refused, in every notation.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

if TYPE_CHECKING:
    import httpx

PORTS = {"http": 80, "https": 443}
LONGEST_URL = 2048
MOST_REDIRECTIONS = 5
CONNECT_SECONDS = 20.0
IDLE_SECONDS = 60.0
"""How long nothing may come."""
LONGEST_SECONDS = 6 * 3600.0
"""How long all of it may take."""
PIECE_BYTES = 1 << 18

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?!\d+\Z|0x)(?={_LABEL}\Z)[a-z0-9-]*[a-z][a-z0-9-]*\Z")
"""Names of at least two labels, the last with a letter: no notation of an address looks so."""
_EMBEDDING = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
"""Networks of IPv6 whose addresses stand for one of IPv4. They are refused."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotAllowed(Exception):
    """The URL may not be fetched. The message says why, for the caller."""


class NotFetched(Exception):
    """The URL could not be fetched. The message says why, for the caller."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL names: checked, not resolved."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


def hosts_in(setting: str) -> tuple[str, ...]:
    """The hosts that the setting `web_download_hosts` names."""
    return tuple(host for word in setting.split(",") if (host := word.strip()))


def target_of(url: str, allowed: Sequence[str]) -> Target:
    """Raises NotAllowed unless the URL names a host that `allowed` has (`*.example.org`: below it; `*`: any)."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise NotAllowed(f"A URL is at most {LONGEST_URL} printable ASCII characters without blanks or backslashes.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NotAllowed("The URL cannot be read.") from None
    if parts.scheme not in PORTS:
        raise NotAllowed("Only http and https are fetched.")
    if "@" in parts.netloc:
        raise NotAllowed("A URL with a user or a password is not fetched.")
    if port is not None and port not in PORTS.values():
        raise NotAllowed("Only the ports 80 and 443 are fetched from.")
    host = (parts.hostname or "").removesuffix(".")
    if len(host) > 253 or _HOST.match(host) is None:
        raise NotAllowed("The URL does not name a host by its full name.")
    if not any(_allows(pattern.lower(), host) for pattern in allowed):
        raise NotAllowed(f"Images are not imported from the host {host}.")
    return Target(scheme=parts.scheme, host=host, port=port or PORTS[parts.scheme], path=_path(parts))


def _allows(pattern: str, host: str) -> bool:
    return pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _path(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def is_public(address: Address) -> bool:
    """Whether an address is public, and stands for no other address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or any(address in network for network in _EMBEDDING):
            return False
        if address not in ipaddress.IPv6Network("2000::/3"):
            return False
    return address.is_global and not (
        address.is_multicast
        or address.is_private
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )


def is_ours(address: Address) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.bind((str(address), 0))
        return True
    return False


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, as text."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        raise NotFetched(f"The host {host} is not found.") from None
    return [str(address[0]) for *_, address in found]


def address_of(found: Sequence[str], host: str) -> Address:
    """The address to connect to. NotAllowed where any address of the name is not public: this may be an attack."""
    addresses: list[Address] = []
    for text in found:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise NotAllowed(f"The host {host} is not one of the Internet.") from None
        if not is_public(address) or is_ours(address):
            raise NotAllowed(f"The host {host} is not one of the Internet.")
        addresses.append(address)
    if not addresses:
        raise NotFetched(f"The host {host} is not found.")
    return addresses[0]


async def fetch(url: str, allowed: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """The content at a URL in pieces, as it is sent; to be closed by who takes them. NotAllowed, NotFetched."""
    import httpx

    context = ssl.create_default_context()
    timeout = httpx.Timeout(IDLE_SECONDS, connect=CONNECT_SECONDS)
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)
    try:
        async with (
            asyncio.timeout(LONGEST_SECONDS),
            httpx.AsyncClient(verify=context, timeout=timeout, limits=limits, trust_env=False) as client,
        ):
            for _ in range(MOST_REDIRECTIONS + 1):
                target = target_of(url, allowed)
                async with await _ask(client, target) as answer:
                    if answer.is_redirect:
                        url = _redirected(target, answer.headers.get("location", ""))
                        continue
                    if answer.status_code != 200:
                        raise NotFetched(f"The host {target.host} answered {answer.status_code}.")
                    async for piece in answer.aiter_raw(PIECE_BYTES):
                        yield piece
                    return
            raise NotFetched("There are too many redirections.")
    except TimeoutError:
        raise NotFetched("It took too long.") from None
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        raise NotFetched(f"The connection failed: {type(error).__name__}.") from None


async def _ask(client: httpx.AsyncClient, target: Target) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
    """Ask the address that was checked, with the host's name: TLS checks the certificate against the name."""
    address = address_of(await resolve(target.host, target.port), target.host)
    literal = f"[{address}]" if address.version == 6 else str(address)
    named = target.host if target.port == PORTS[target.scheme] else f"{target.host}:{target.port}"
    return client.stream(
        "GET",
        f"{target.scheme}://{literal}:{target.port}{target.path}",
        headers={"Host": named, "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "cumulet"},
        extensions={"sni_hostname": target.host},
    )


def _redirected(target: Target, location: str) -> str:
    if not location:
        raise NotFetched(f"The host {target.host} redirects to nowhere.")
    url = urljoin(target.url, location)
    if target.scheme == "https" and not url.startswith("https:"):
        raise NotAllowed("It is redirected from https to something else.")
    return url
