"""The metadata service's answers: one HTTP/1.1 request, one answer, from documents the agent has handed over. Pure.

Who asks is known from the port a connection came from; nothing in a request is believed. Paths are OpenStack's
(``/openstack/latest/meta_data.json``) and the few of EC2's that small images ask for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

MOST_HEAD_BYTES = 8192
_VERSIONS = ("2012-08-10", "2018-08-27", "latest")
"""The oldest, and one that knows network data: what is there is the same under each."""
_EC2_VERSIONS = ("2009-04-04", "latest")


def complete(head: bytes) -> bool:
    """Whether a request's head has come whole."""
    return b"\r\n\r\n" in head or b"\n\n" in head


def answer(head: bytes, documents: Mapping[str, bytes] | None) -> bytes:
    """The answer to a request; `documents` None: nobody knows the port it came from."""
    words = head.split(b"\n", 1)[0].split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _response("400 Bad Request", b"")
    method, target = words[0], words[1]
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", b"", "Allow: GET, HEAD\r\n")
    if documents is None:
        return _response("404 Not Found", b"")
    path = target.split(b"?", 1)[0].decode("latin-1")
    found = _found([part for part in path.split("/") if part], documents)
    if found is None:
        return _response("404 Not Found", b"")
    return _response("200 OK", found, body=method == b"GET")


def _found(path: list[str], documents: Mapping[str, bytes]) -> bytes | None:
    match path:
        case []:
            return _listing((*_EC2_VERSIONS, "openstack"))
        case ["openstack"]:
            return _listing(_VERSIONS)
        case ["openstack", version] if version in _VERSIONS:
            return _listing(sorted(documents))
        case ["openstack", version, name] if version in _VERSIONS:
            return documents.get(name)
        case [version] if version in _EC2_VERSIONS:
            return _listing(("meta-data/", *(["user-data"] if "user_data" in documents else [])))
        case [version, "user-data"] if version in _EC2_VERSIONS:
            return documents.get("user_data")
        case [version, "meta-data", *rest] if version in _EC2_VERSIONS and len(rest) <= 1:
            values = _ec2(documents)
            return _listing(sorted(values)) if not rest else _bytes(values.get(rest[0]))
    return None


def _ec2(documents: Mapping[str, bytes]) -> dict[str, str]:
    known = json.loads(documents.get("meta_data.json", b"{}"))
    return {
        "instance-id": str(known.get("uuid", "")),
        "hostname": str(known.get("hostname", "")),
        "local-hostname": str(known.get("hostname", "")),
    }


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _listing(names: object) -> bytes:
    assert isinstance(names, (tuple, list))
    return "\n".join(names).encode()


def _response(status: str, content: bytes, more: str = "", *, body: bool = True) -> bytes:
    kind = "application/json" if content.startswith(b"{") else "text/plain; charset=utf-8"
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", "Connection: close")
    return ("".join(f"{line}\r\n" for line in lines) + more + "\r\n").encode() + (content if body else b"")
