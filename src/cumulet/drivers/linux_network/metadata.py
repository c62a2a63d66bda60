"""The metadata service's answers: one HTTP/1.1 request, one answer, from documents the agent has handed over. Pure.

The guest that asks is known by the port that its connection came from; nothing in a request is trusted. Paths are
OpenStack's (``/openstack/latest/meta_data.json``), and EC2's (``/latest/meta-data/public-keys/0/openssh-key``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
from collections.abc import Mapping

from cumulet.host.telling import EC2, MOST_PASSWORD_CHARACTERS, PASSWORD

MOST_REQUEST_BYTES = 8192
"""Of a request: head and body."""
MOST_TOKEN_SECONDS = 21_600
"""As EC2's: six hours."""
_TTL, _TOKEN = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"
_VERSIONS = ("2012-08-10", "2018-08-27", "latest")
"""The oldest version, one that has network data, and the newest. All show the same documents."""
_EC2_VERSIONS = ("2009-04-04", "latest")


def complete(received: bytes) -> bool:
    """Whether a whole request has come: its head, and a password with it, or much more than could be taken."""
    head, body = _parted(received)
    if head is None:
        return False
    length = _length(head) if _is_post(head) else None
    return length is None or len(body) >= min(length, 4 * MOST_PASSWORD_CHARACTERS)


def _parted(received: bytes) -> tuple[bytes | None, bytes]:
    """Head and body; the head None: it has not come as a whole."""
    for end in (b"\r\n\r\n", b"\n\n"):
        head, found, body = received.partition(end)
        if found:
            return head, body
    return None, b""


def _is_post(head: bytes) -> bool:
    return head.startswith(b"POST ")


def _length(head: bytes) -> int | None:
    said = _header(head, "Content-Length") or ""
    return int(said) if re.fullmatch("[0-9]{1,9}", said) else None


class Tokens:
    """Session tokens as EC2's metadata service gives them: for one port, with an end, and stored nowhere.

    A token is valid on the host that gave it. After a move a guest gets 401, and asks for a new one.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def give(self, port: int, until_s: int) -> str:
        said = struct.pack("!Q", until_s)
        return base64.urlsafe_b64encode(said + self._sealed(port, said)).decode()

    def holds(self, token: str, port: int, now_s: float) -> bool:
        """Whether the token was given to this port and has not expired."""
        try:
            content = base64.b64decode(token, altchars=b"-_", validate=True)
        except ValueError:
            return False
        said, seal = content[:8], content[8:]
        return hmac.compare_digest(seal, self._sealed(port, said)) and struct.unpack("!Q", said)[0] > now_s

    def _sealed(self, port: int, said: bytes) -> bytes:
        return hmac.digest(self._secret, struct.pack("!Q", port) + said, hashlib.sha256)


def answer(head: bytes, documents: Mapping[str, bytes] | None, tokens: Tokens, port: int, now_s: float) -> bytes:
    """The answer to a request that came from a port. `documents` is None for an unknown port."""
    words = head.split(b"\n", 1)[0].split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _response("400 Bad Request", b"")
    method, target = words[0], words[1]
    path = _path(target)
    if method == b"PUT" and path == ["latest", "api", "token"]:
        return _token(head, documents, tokens, port, now_s)
    if method not in (b"GET", b"HEAD"):
        if _is_password(path):  # As Nova.
            return _response("400 Bad Request", b"GET and POST only are supported.")
        return _response("405 Method Not Allowed", b"", "Allow: GET, HEAD\r\n")
    shown = _header(head, _TOKEN)
    if shown is not None and not tokens.holds(shown, port, now_s):
        return _response("401 Unauthorized", b"")
    if documents is None:
        return _response("404 Not Found", b"")
    found = _found(path, documents)
    if found is None:
        return _response("404 Not Found", b"")
    return _response("200 OK", found, body=method == b"GET")


def posted(
    received: bytes, documents: Mapping[str, bytes] | None, tokens: Tokens, port: int, now_s: float
) -> str | bytes | None:
    """The password that a request posts; or the answer to one that cannot be taken. None: the request posts none.

    As Nova, but for a body that is no text, or of unknown length: 400 and 411 here, an error of the server's there.
    """
    head, body = _parted(received)
    words = (head or b"").split(b"\n", 1)[0].split()
    if head is None or len(words) != 3 or words[0] != b"POST" or not words[2].startswith(b"HTTP/1."):
        return None
    if not _is_password(_path(words[1])):
        return None
    shown, length = _header(head, _TOKEN), _length(head)
    if shown is not None and not tokens.holds(shown, port, now_s):
        return _response("401 Unauthorized", b"")
    if documents is None:
        return _response("404 Not Found", b"")
    if PASSWORD in documents:
        return _response("409 Conflict", b"")
    if length is None:
        return _response("411 Length Required", b"")
    if length > MOST_PASSWORD_CHARACTERS:
        return _response("400 Bad Request", b"Request is too large.")
    try:
        return body[:length].decode() or _response("200 OK", b"")
    except UnicodeDecodeError:
        return _response("400 Bad Request", b"")


def taken(done: bool | None) -> bytes:
    """The answer to a posted password. False: there was one already. None: nobody knows what became of it."""
    return _response({True: "200 OK", False: "409 Conflict", None: "503 Service Unavailable"}[done], b"")


def _is_password(path: list[str]) -> bool:
    """Nova has it since 2013-04-04."""
    return len(path) == 3 and path[0] == "openstack" and path[1] in _VERSIONS[1:] and path[2] == PASSWORD


def _path(target: bytes) -> list[str]:
    return [part for part in target.split(b"?", 1)[0].decode("latin-1").split("/") if part]


def _token(head: bytes, documents: Mapping[str, bytes] | None, tokens: Tokens, port: int, now_s: float) -> bytes:
    """A new session token. 403 for a request that a proxy has passed on, as EC2."""
    if documents is None:
        return _response("404 Not Found", b"")
    if _header(head, "X-Forwarded-For") is not None:
        return _response("403 Forbidden", b"")
    seconds = _header(head, _TTL) or ""
    if not re.fullmatch("[0-9]{1,5}", seconds) or not 1 <= int(seconds) <= MOST_TOKEN_SECONDS:
        return _response("400 Bad Request", b"")
    token = tokens.give(port, int(now_s) + int(seconds))
    return _response("200 OK", token.encode(), f"{_TTL}: {seconds}\r\n")


def _header(head: bytes, name: str) -> str | None:
    for line in head.split(b"\n")[1:]:
        key, colon, value = line.partition(b":")
        if colon and key.strip().lower() == name.lower().encode():
            return value.strip().decode("latin-1")
    return None


def _found(path: list[str], documents: Mapping[str, bytes]) -> bytes | None:
    match path:
        case []:
            return _listing((*_EC2_VERSIONS, "openstack"))
        case ["openstack"]:
            return _listing(_VERSIONS)
        case ["openstack", version] if version in _VERSIONS:
            password = {PASSWORD} if version != _VERSIONS[0] else set()
            return _listing(sorted((documents.keys() - {EC2, PASSWORD}) | password))
        case ["openstack", *_] if _is_password(path):
            return documents.get(PASSWORD, b"")
        case ["openstack", version, name] if version in _VERSIONS and name != PASSWORD:
            return documents.get(name)
        case [version] if version in _EC2_VERSIONS:
            return _listing(("meta-data/", *(["user-data"] if "user_data" in documents else [])))
        case [version, "user-data"] if version in _EC2_VERSIONS:
            return documents.get("user_data")
        case [version, "meta-data", *rest] if version in _EC2_VERSIONS:
            return _branch(_ec2(documents), rest)
    return None


_NAME = "_name"
"""In a branch: as what it is listed, such as ``0=the key's name``."""


def _branch(value: object, path: list[str]) -> bytes | None:
    """What EC2's tree has at this path: names, those of branches with a slash, or a value."""
    for name in path:
        if not isinstance(value, dict) or name == _NAME or name not in value:
            return None
        value = value[name]
    if isinstance(value, dict):
        return _listing(sorted(_shown(name, below) for name, below in value.items() if name != _NAME))
    return _listing([str(one) for one in value]) if isinstance(value, list) else str(value).encode()


def _shown(name: str, below: object) -> str:
    return (str(below[_NAME]) if _NAME in below else f"{name}/") if isinstance(below, dict) else name


def _ec2(documents: Mapping[str, bytes]) -> object:
    """Guests of an earlier Cumulet have no such document."""
    if EC2 in documents:
        return json.loads(documents[EC2])
    known = json.loads(documents.get("meta_data.json", b"{}"))
    hostname = str(known.get("hostname", ""))
    return {"instance-id": str(known.get("uuid", "")), "hostname": hostname, "local-hostname": hostname}


def _listing(names: object) -> bytes:
    assert isinstance(names, (tuple, list))
    return "\n".join(names).encode()


def _response(status: str, content: bytes, more: str = "", *, body: bool = True) -> bytes:
    kind = "application/json" if content.startswith(b"{") else "text/plain; charset=utf-8"
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", "Connection: close")
    return ("".join(f"{line}\r\n" for line in lines) + more + "\r\n").encode() + (content if body else b"")
