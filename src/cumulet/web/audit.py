"""The audit trail: a CADF-like event for each change and each refusal; each line carries the hash of the one before."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import msgspec

from cumulet.web.operation import Caller

_encode = msgspec.json.Encoder(order="sorted").encode
_START = "0" * 64
_ACTIONS = {"POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}


class Audit:
    """Appends to one file; changing an earlier line breaks the chain from there on. Holds no bodies, so no secrets."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._last = _last_hash(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def record(
        self,
        *,
        time_us: int,
        request_id: str,
        caller: Caller | None,
        client: str,
        service: str,
        method: str,
        path: str,
        action: str | None,
        status: int,
    ) -> None:
        known = caller is not None and bool(caller.user_id)
        event: dict[str, Any] = {
            "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
            "eventType": "activity",
            "eventTimeUs": time_us,
            "id": request_id,
            "action": f"{service}/{_ACTIONS.get(method, 'read')}" + (f"/{action}" if action else ""),
            "outcome": "success" if status < 400 else "failure",
            "reason": {"reasonType": "HTTP", "reasonCode": status},
            "initiator": {
                "id": caller.user_id if known and caller is not None else None,
                "project_id": caller.project_id if caller is not None else None,
                "token": caller.token_id if caller is not None else None,
                "host": client,
            },
            "target": {"typeURI": f"service/{service}", "id": path[:1024]},
        }
        with self._lock:
            event["previous"] = self._last
            line = _encode(event)
            self._last = hashlib.sha256(line).hexdigest()
            os.write(self._file, line + b"\n")

    def close(self) -> None:
        os.close(self._file)


def _last_hash(path: Path) -> str:
    """The hash the next line must carry; a half-written last line (a crash) is completed so that lines stay lines."""
    try:
        content = path.open("rb")
    except FileNotFoundError:
        return _START
    with content:
        content.seek(0, os.SEEK_END)
        size = content.tell()
        content.seek(max(0, size - 65_536))
        tail = content.read()
    if not tail:
        return _START
    if not tail.endswith(b"\n"):
        with path.open("ab") as end:
            end.write(b"\n")
    return hashlib.sha256(tail.rstrip(b"\n").rsplit(b"\n", 1)[-1]).hexdigest()


def first_broken_line(path: Path) -> int | None:
    """The number of the first line that does not carry the hash of the one before; None if the chain is whole."""
    previous = _START
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            line = raw.rstrip(b"\n")
            try:
                event = msgspec.json.decode(line)
            except msgspec.DecodeError:
                return number
            if not isinstance(event, dict) or event.get("previous") != previous:
                return number
            previous = hashlib.sha256(line).hexdigest()
    return None
