"""The audit trail: a CADF-like event for each change and each refusal, in a chain that takes a key to make.

The chain continues from file to file. A file that has grown large is put aside under the number of its last line, and
the oldest of these are removed. Another file, the start, says where the oldest one that is left begins.

A line that cannot be written waits in memory, so a full disk breaks no chain while the process runs. When too many
lines wait, `full` says so, and changes are refused because they could not be recorded. What waits until the end is
lost: the head then says that there were more lines, so the chain stays broken there.

Each line names the one before it and ends with its own code (HMAC-SHA256). A file beside it, the head, says under the
same key how many lines there are: a line that is changed, taken out, put in or cut off at the end is found by `verify`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import logging
import os
import re
import shutil
import threading
from collections import deque
from pathlib import Path

import msgspec

from cumulet.owned import refuse_exposed, write_whole
from cumulet.web.operation import Caller

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder(order="sorted").encode
_START = "0" * 64
_LOST = "lost"
"""Stands for the code of the line before, if the chain did not end as its head says. This break stays for ever."""
_CODE = re.compile(rb',"code":"([0-9a-f]{64})"}\Z')
_HEAD_BYTES = 256
_ACTIONS = {"POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where the chain ends: how many lines there are, and the code of the last; written ``NUMBER:CODE``."""

    number: int
    code: str

    def __str__(self) -> str:
        return f"{self.number}:{self.code}"


_NO_LINE = Head(number=0, code=_START)
"""The head of a chain that has just begun."""


class Broken(Exception):
    """The chain is not what was written; says where."""


FILE_BYTES = 64 << 20
FILES_KEPT = 16
"""Files put aside, besides the one that is written."""
MOST_WAITING = 5000
"""Lines (of at most some 3 KiB) that wait for room on the disk; twice as many where something is deleted."""
LONGEST_PATH = 1024
"""Characters, of which JSON makes up to six bytes each."""
LONGEST_REFUSED_PATH = 192
LONGEST_ACTION = 64
"""Bytes of JSON. What is refused may be any text."""
LONGEST_REFUSAL = 1024
LONGEST_COUNT = 512
"""Bytes of a line for one refusal, and of one that counts refusals (`left_out`)."""
COPY_ATTEMPTS = 5
"""How often a copy is tried, if the chain goes on in a new file meanwhile."""


class Audit:
    """Appends to one file. Holds no bodies, so no secrets."""

    def __init__(self, path: Path, *, file_bytes: int = FILE_BYTES, files_kept: int = FILES_KEPT) -> None:
        self._lock = threading.Lock()
        self._path = path
        self._file_bytes = file_bytes
        self._files_kept = files_kept
        self._waiting: deque[tuple[bytes, Head]] = deque()
        key_file, head_file, _ = _beside(path)
        self._key = _load_or_make_key(key_file, path)
        self._file = _opened(path)
        self._head_file = os.open(head_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        tail = _tail(self._file)
        if tail and not tail.endswith(b"\n"):  # A crash cut the last line short: the next one begins a line of its own.
            os.write(self._file, b"\n")
        if not tail and (before := put_aside(path)):
            tail = _tail_of(before[-1])
        head = _read_head(self._key, head_file)
        self._number, self._last = _resumed(self._key, tail, head)
        if head is None and (self._number, self._last) == (0, _START):
            os.pwrite(self._head_file, _sealed(self._key, _NO_LINE), 0)  # An empty head is one that was emptied.

    def full(self, *, deletes: bool) -> bool:
        """Whether a change now could not be recorded."""
        if len(self._waiting) >= MOST_WAITING:
            with self._lock:
                self._write_waiting()
        return len(self._waiting) >= MOST_WAITING * (2 if deletes else 1)

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
        """A change, or a refusal."""
        target = path[:LONGEST_PATH] if status < 400 else _cut(path, LONGEST_REFUSED_PATH)
        known = caller is not None and bool(caller.user_id)
        event: dict[str, object] = {
            "id": request_id,
            "action": f"{service}/{_ACTIONS.get(method, 'read')}"
            + (f"/{_cut(action, LONGEST_ACTION)}" if action else ""),
            "outcome": "success" if status < 400 else "failure",
            "reason": {"reasonType": "HTTP", "reasonCode": status},
            "initiator": {
                "id": caller.user_id if known and caller is not None else None,
                "project_id": caller.project_id if caller is not None else None,
                "token": caller.token_id if caller is not None else None,
                "host": client,
            },
            "target": {"typeURI": f"service/{service}", "id": target},
        }
        self._append(time_us, event)

    def record_left_out(self, *, time_us: int, user_id: str | None, client: str | None, number: int) -> None:
        """How many refusals of a user, or at an address where nobody was known, have no line of their own
        (`sampling`). Of neither: those of further users or addresses."""
        initiator = {"id": user_id, "host": client}
        self._append(time_us, {"action": "refused", "outcome": "failure", "initiator": initiator, "leftOut": number})

    def _append(self, time_us: int, event: dict[str, object]) -> None:
        event["typeURI"] = "http://schemas.dmtf.org/cloud/audit/1.0/event"
        event["eventType"] = "activity"
        event["eventTimeUs"] = time_us
        with self._lock:
            event["number"] = self._number + 1
            event["previous"] = self._last
            text = _encode(event)
            code = _code(self._key, text)
            self._number, self._last = self._number + 1, code
            line = text[:-1] + b',"code":"' + code.encode() + b'"}\n'
            self._waiting.append((line, Head(number=self._number, code=code)))
            self._write_waiting()

    def _write_waiting(self) -> None:
        """Write what waits, in order, as far as the disk has room."""
        try:
            while self._waiting:
                line, head = self._waiting[0]
                size = os.fstat(self._file).st_size
                if size and size + len(line) > self._file_bytes:
                    self._put_aside(head.number - 1)
                    size = 0
                if os.write(self._file, line) != len(line):
                    os.ftruncate(self._file, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._waiting.popleft()
                os.pwrite(self._head_file, _sealed(self._key, head), 0)
        except OSError as error:
            log.error("the audit trail cannot be written: %s", error.strerror)

    def _give_up_waiting(self) -> None:
        """The head names the last line that is lost. So `verify` finds the gap, and the next start goes on after it."""
        count, (_, last) = len(self._waiting), self._waiting[-1]
        log.error("lines of the audit trail are lost, for there was no room for them until the end: %d", count)
        try:
            os.pwrite(self._head_file, _sealed(self._key, last), 0)  # Over the one before, which needs no room.
        except OSError as error:
            log.error("nor does the audit trail say so, its head cannot be written: %s", error.strerror)
        self._waiting.clear()

    def _put_aside(self, last: int) -> None:
        """Go on in a new file, and remove the oldest of the others if there are too many."""
        with contextlib.suppress(FileNotFoundError):  # Then the last attempt had room for all but the new file.
            os.rename(self._path, self._path.with_name(f"{self._path.stem}-{last:012}{self._path.suffix}"))
        new = _opened(self._path)
        os.close(self._file)
        self._file = new
        for oldest in put_aside(self._path)[: -self._files_kept or None]:
            write_whole(_beside(self._path)[2], _sealed(self._key, _ends(oldest)))
            oldest.unlink()

    def close(self) -> None:
        """Try once more to write what waits. What finds no room even now is lost, and counted."""
        with self._lock:
            self._write_waiting()
            if self._waiting:
                self._give_up_waiting()
        os.close(self._file)
        os.close(self._head_file)


def verify(path: Path, noted: Head | None = None) -> Head:
    """The end of the chain at `path`. `Broken` if it was changed, or if `noted` is not one of its heads."""
    key_file, head_file, start_file = _beside(path)
    refuse_exposed(key_file)
    key = key_file.read_bytes()
    start = _read_head(key, start_file)
    number, code = (0, _START) if start is None else (start.number, start.code)
    for file in (*put_aside(path), path):
        with file.open("rb") as lines:
            for raw in lines:
                number += 1
                code = _checked(key, raw.rstrip(b"\n"), number, code)
                if noted is not None and noted.number == number and noted.code != code:
                    raise Broken(f"line {number} is not the one whose head was noted")
    if noted is not None and noted.number > number:
        raise Broken(f"it ends with line {number}: the head that was noted is that of line {noted.number}")
    head = _read_head(key, head_file)
    if head is None:
        raise Broken(f"its head ({head_file.name}) is missing or was changed, so nobody knows where it ended")
    # A crash may come between a line and its head; a line that came without its key cannot.
    if head.number > number:
        raise Broken(f"it ends with line {number}, and there were {head.number}")
    return Head(number=number, code=code)


def copy_while_written(path: Path, folder: Path) -> None:
    """Copy the chain at `path`, with its key, into the empty `folder`: whole, up to a line that its head names."""
    key_file, head_file, start_file = _beside(path)
    for _ in range(COPY_ATTEMPTS):
        for left in folder.iterdir():
            left.unlink()
        before = _files_of(path)
        key = key_file.read_bytes()
        head = _read_head(key, head_file)
        try:
            contents = {one: one.read_bytes() for one in (key_file, head_file, start_file) if one.exists()}
            for one in (*put_aside(path), path):
                (folder / one.name).touch(mode=0o600)
                shutil.copyfile(one, folder / one.name, follow_symlinks=False)
        except FileNotFoundError:
            continue  # The file was put aside, or removed, meanwhile.
        if _files_of(path) != before:
            continue
        if head is not None:
            contents[head_file] = _sealed(key, head)
        if head is not None or not contents.get(head_file):
            _cut_after(folder / path.name, head, before[0])
        for one, content in contents.items():
            (folder / one.name).touch(mode=0o600)
            (folder / one.name).write_bytes(content)
        return
    raise Broken("its files change faster than they can be copied")


def _cut_after(copied: Path, head: Head | None, others: list[Path]) -> None:
    """Leave out the lines that came after `head`; None: all of them."""
    if head is None or head == _NO_LINE or (others and int(others[-1].stem.rpartition("-")[2]) == head.number):
        os.truncate(copied, 0)
        return
    last = b',"code":"' + head.code.encode() + b'"}\n'
    if (at := copied.read_bytes().find(last)) >= 0:  # else `verify` has something to say
        os.truncate(copied, at + len(last))


def _files_of(path: Path) -> tuple[list[Path], bytes]:
    """What changes when the chain continues in a new file."""
    start_file = _beside(path)[2]
    return put_aside(path), start_file.read_bytes() if start_file.exists() else b""


def _checked(key: bytes, line: bytes, number: int, previous: str) -> str:
    """The code of line `number`. `Broken` if the line was changed or moved."""
    found = _CODE.search(line)
    if found is None:
        raise Broken(f"line {number} is no whole line")
    code = found[1].decode()
    text = line[: found.start()] + b"}"
    if not hmac.compare_digest(code, _code(key, text)):
        raise Broken(f"line {number} was changed, or written without the key")
    event = msgspec.json.decode(text)
    if event.get("number") != number or event.get("previous") != previous:
        raise Broken(f"line {number} does not follow the one before it: lines are missing, or were moved")
    return code


def put_aside(path: Path) -> list[Path]:
    """The files that came before `path`, the oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-{'[0-9]' * 12}{path.suffix}"))


def _cut(text: str, most: int) -> str:
    """The beginning of `text`, of `most` bytes in JSON at most: `most` characters, or a sixth if any takes more."""
    short = text[:most]
    return short if len(_encode(short)) <= most + len('""') else short[: most // 6]


def _beside(path: Path) -> tuple[Path, Path, Path]:
    """The files of the key, of the head and of the start."""
    return path.with_suffix(".key"), path.with_suffix(".head"), path.with_suffix(".start")


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _ends(file: Path) -> Head:
    """The head of the last line of a file that was put aside."""
    found = _CODE.search(_tail_of(file).rstrip(b"\n").rsplit(b"\n", 1)[-1])
    return Head(number=int(file.stem.rpartition("-")[2]), code=found[1].decode() if found else _LOST)


def _code(key: bytes, text: bytes) -> str:
    return hmac.digest(key, text, hashlib.sha256).hex()


def _load_or_make_key(file: Path, log: Path) -> bytes:
    """The key of the chain. If there is none, one is made, and a log that was written without a key is put aside."""
    if not file.exists():
        if log.exists() and log.stat().st_size:
            log.rename(log.with_name(f"{log.stem}-without-key{log.suffix}"))
        write_whole(file, os.urandom(32))
    refuse_exposed(file)
    return file.read_bytes()


def _tail_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return _tail(file.fileno())


def _tail(file: int) -> bytes:
    size = os.fstat(file).st_size
    return os.pread(file, 65_536, max(0, size - 65_536))


def _resumed(key: bytes, tail: bytes, head: Head | None) -> tuple[int, str]:
    """The number of the last line, and the code that the next line names as the one before it."""
    if not tail:
        return (0, _START) if head is None or head == _NO_LINE else (head.number, _LOST)
    line = tail.rstrip(b"\n").rsplit(b"\n", 1)[-1]
    found = _CODE.search(line)
    if head is not None and found is not None:
        text, code = line[: found.start()] + b"}", found[1].decode()
        if code == head.code:
            return head.number, code
        event = msgspec.json.decode(text) if _code(key, text) == code else {}
        if event.get("number") == head.number + 1 and event.get("previous") == head.code:
            return head.number + 1, code  # A crash came between the line and its head.
    return (head.number if head is not None else 0), _LOST


def _sealed(key: bytes, head: Head) -> bytes:
    text = str(head).encode()
    return (text + b" " + _code(key, text).encode() + b"\n").ljust(_HEAD_BYTES)


def _read_head(key: bytes, file: Path) -> Head | None:
    """The head in `file`; None: there is no file, or its content was not written with the key."""
    try:
        text, _, seal = file.read_bytes().strip().partition(b" ")
    except FileNotFoundError:
        return None
    if not text or not hmac.compare_digest(seal, _code(key, text).encode()):
        return None
    number, _, code = text.decode().partition(":")
    return Head(number=int(number), code=code)
