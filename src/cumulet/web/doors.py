"""Doors: what a service serves beside its operations, below a path of its own: pages, and WebSockets.

Pages of other sites may not open a WebSocket: if a browser sends ``Origin``, it has to be ours.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.websockets import WebSocket, WebSocketDisconnect

from cumulet.web.audit import LONGEST_PATH

if TYPE_CHECKING:
    from cumulet.web.answers import Answer
    from cumulet.web.context import Cloud

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 65_536
"""Bytes of a WebSocket's message from a client; a larger one ends it."""


def page_headers(*, styles: str = "'self'", images: str = "'self'") -> Mapping[str, str]:
    """Headers of a page and its files. Scripts come only from our own files.

    `styles`, `images`: their sources, in the words of a Content-Security-Policy.
    """
    return {
        "content-security-policy": (
            f"default-src 'none'; script-src 'self'; style-src {styles}; connect-src 'self'; img-src {images}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cache-control": "no-store",
    }


class Door(Protocol):
    """The door of one service."""

    def page(self, path: str) -> Answer | None:
        """The answer with a file below the door; None: there is no such file."""

    async def talk(self, cloud: Cloud, path: str, socket: WebSocket) -> None:
        """Accept a WebSocket, or close it; return when it is over."""


Doors = Mapping[str, Door]
"""Doors by the beginning of their paths, such as ``/console/``."""


def door_of(doors: Doors, path: str) -> tuple[Door, str] | None:
    """The door that a path leads to, and the rest of the path."""
    for prefix, door in doors.items():
        if path.startswith(prefix):
            return door, path[len(prefix) :]
    return None


async def talk(doors: Doors, cloud: Cloud, socket: WebSocket) -> None:
    """Serve one WebSocket. Its query holds a secret and is written nowhere.

    The callers are not known yet, so repeated lines of this log are counted like others (`web.repeats.Repeats`).
    """
    path: str = socket.scope["path"]
    found = door_of(doors, path)
    if found is None or not _same_site(socket.headers, cloud.settings.public_url):
        log.info("WEBSOCKET %s refused", path[:LONGEST_PATH])
        await socket.close()
        return
    door, rest = found
    log.info("WEBSOCKET %s", path[:LONGEST_PATH])
    with contextlib.suppress(WebSocketDisconnect):
        await door.talk(cloud, rest, socket)


def _same_site(headers: Headers, public_url: str | None) -> bool:
    origin = headers.get("origin")
    if origin is None:
        return True  # Only browsers send `Origin`, which protects their users.
    ours = urlsplit(public_url).netloc if public_url is not None else headers.get("host", "")
    parts = urlsplit(origin)
    return parts.scheme == "https" and parts.netloc == ours
