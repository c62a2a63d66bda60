"""A client light enough to measure with: one blocking TLS connection, requests and answers as bytes.

Client and server share the machine's few cores, so the server loses each microsecond that the client uses.
"""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

RECEIVE_BYTES = 1 << 18
MICROVERSION = "2.96"


class UnexpectedAnswer(Exception):
    """The cloud gave another answer than the benchmark needs."""


@dataclass(slots=True)
class Connection:
    """One HTTP/1.1 connection, kept open; not thread-safe."""

    url: str
    authority: str
    token: str | None = None
    _socket: ssl.SSLSocket = field(init=False)
    _host: str = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self._host = parts.netloc
        context = ssl.create_default_context(cafile=self.authority)
        raw = socket.create_connection((parts.hostname or "", parts.port or 443), timeout=120)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(raw, server_hostname=parts.hostname)

    def prepared(self, method: str, path: str, body: object | None = None) -> bytes:
        """A request as bytes, to be sent any number of times."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", "Accept: application/json"]
        lines.append(f"OpenStack-API-Version: compute {MICROVERSION}")
        if self.token is not None:
            lines.append(f"X-Auth-Token: {self.token}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + content

    def send_octets(self, method: str, path: str, block: bytes, times: int) -> int:
        """A request whose body is `block`, `times` over; the status of its answer."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"X-Auth-Token: {self.token}"]
        lines += ["Content-Type: application/octet-stream", f"Content-Length: {len(block) * times}"]
        self._socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        for _ in range(times):
            self._socket.sendall(block)
        return self._answer()[0]

    def exchange(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Send it, wait for the whole answer: status, head, body."""
        self._socket.sendall(request)
        return self._answer()

    def _answer(self) -> tuple[int, bytes, bytes]:
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = received[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        pieces = [received[end + 4 :]]
        missing = length - len(pieces[0])
        while missing > 0:
            pieces.append(self._receive())
            missing -= len(pieces[-1])
        return int(received[9:12]), received[:end], b"".join(pieces)

    def ask(self, method: str, path: str, body: object | None = None) -> Any:
        """One request that has to succeed; its decoded body."""
        status, _, content = self.exchange(self.prepared(method, path, body))
        if not 200 <= status < 300:
            raise UnexpectedAnswer(f"{method} {path}: {status} {content[:300]!r}")
        return json.loads(content) if content else None

    def log_in(self, user: str, password: str, project: str) -> None:
        """Get a token by password and use it from now on."""
        domain = {"name": "Default"}
        identity = {
            "methods": ["password"],
            "password": {"user": {"name": user, "password": password, "domain": domain}},
        }
        body = {"auth": {"identity": identity, "scope": {"project": {"name": project, "domain": domain}}}}
        status, head, content = self.exchange(self.prepared("POST", "/identity/v3/auth/tokens", body))
        if status != 201:
            raise UnexpectedAnswer(f"logging in: {status} {content[:300]!r}")
        headers = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        self.token = next(value.strip().decode() for name, _, value in headers if name.lower() == b"x-subject-token")

    def again(self) -> Connection:
        """Another connection with the same token."""
        return Connection(self.url, self.authority, self.token)

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        piece = self._socket.recv(RECEIVE_BYTES)
        if not piece:
            raise UnexpectedAnswer("the server closed the connection")
        return piece
