"""The screen of a simulated guest: a small server of RFB 3.8 (RFC 6143) that shows what the guest is and does.

It has one picture of a fixed size, sent whole (encoding Raw) in the pixels a client has asked for, when the client has
asked and something has changed. It answers nothing new before the last answer was taken, so no client can fill memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cumulet.drivers.simulated import font
from cumulet.host.driver import DriverError

COLUMNS, LINES = 48, 9
WIDTH, HEIGHT = COLUMNS * font.CELL_WIDTH, LINES * font.CELL_HEIGHT
VERSION = b"RFB 003.008\n"
_NO_AUTHENTICATION = b"\x01"
_MOST_ENCODINGS = 1024
_FRONT, _BACK = (216, 222, 233), (22, 24, 29)
_BACKSPACE = 0xFF08

_SET_PIXEL_FORMAT, _SET_ENCODINGS, _UPDATE_REQUEST, _KEY, _POINTER, _CUT_TEXT = 0, 2, 3, 4, 5, 6
_SIZES = {_SET_PIXEL_FORMAT: 20, _SET_ENCODINGS: 4, _UPDATE_REQUEST: 10, _KEY: 8, _POINTER: 6, _CUT_TEXT: 8}
"""Of each message a client may send, without what follows in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """RFC 6143, 7.4: `maxima` and `shifts` of red, green and blue."""

    bits: int = 32
    big_endian: bool = False
    maxima: tuple[int, int, int] = (255, 255, 255)
    shifts: tuple[int, int, int] = (16, 8, 0)

    @classmethod
    def read(cls, data: bytes) -> PixelFormat:
        bits, _, big_endian, true_colour, red, green, blue, *shifts = struct.unpack(">BBBBHHHBBB3x", data)
        if bits not in (8, 16, 32) or not true_colour or max(shifts) >= bits:
            raise DriverError("RFB_PIXELS: only true colours of 8, 16 or 32 bits are shown")
        first, second, third = shifts
        return cls(bits=bits, big_endian=bool(big_endian), maxima=(red, green, blue), shifts=(first, second, third))

    def written(self) -> bytes:
        return struct.pack(">BBBBHHHBBB3x", self.bits, 24, self.big_endian, 1, *self.maxima, *self.shifts)

    def pixel(self, colour: tuple[int, int, int]) -> bytes:
        parts = zip(colour, self.maxima, self.shifts, strict=True)
        value = sum(part * most // 255 << shift for part, most, shift in parts) & ((1 << self.bits) - 1)
        return value.to_bytes(self.bits // 8, "big" if self.big_endian else "little")


class Screen:
    """One client's. `lines`: what is to be seen now; `typed`: whom a key is told."""

    def __init__(self, name: str, lines: Callable[[], Sequence[str]], typed: Callable[[str], None]) -> None:
        self._name = name.encode()
        self._lines = lines
        self._typed = typed
        self.over = False
        """The guest has ended since."""
        self._heard = bytearray()
        self._skip = 0
        self._stage = self._version
        self._format = PixelFormat()
        self._wanted = False
        """An update was asked for and not given yet."""
        self._shown: tuple[str, ...] | None = None
        """What the client has been shown; None: it wants all of it, whatever it has."""

    def said(self, data: bytes) -> bytes:
        """The immediate answer to what a client has said. DriverError for a version of RFB that is not spoken here."""
        self._heard += data
        answer = b""
        while True:
            left_out = min(self._skip, len(self._heard))
            del self._heard[:left_out]
            self._skip -= left_out
            before = len(self._heard), self._stage
            answer += self._stage()
            if (len(self._heard), self._stage) == before:
                return answer

    def look(self) -> bytes:
        """The picture, where it was asked for and has changed."""
        lines = tuple(self._lines())[:LINES]
        if not self._wanted or lines == self._shown:
            return b""
        self._wanted, self._shown = False, lines
        front, back = self._format.pixel(_FRONT), self._format.pixel(_BACK)
        picture = [row for line in (*lines, *[""] * (LINES - len(lines))) for row in font.drawn(line, COLUMNS)]
        pixels = b"".join(front if lit else back for row in picture for lit in row)
        return struct.pack(">BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + pixels

    # -- stages: each takes its message from what was heard, if all of it has come

    def _take(self, size: int) -> bytes | None:
        if len(self._heard) < size:
            return None
        taken = bytes(self._heard[:size])
        del self._heard[:size]
        return taken

    def _version(self) -> bytes:
        version = self._take(len(VERSION))
        if version is None:
            return b""
        if version != VERSION:
            raise DriverError("RFB_VERSION: this screen speaks RFB 3.8")
        self._stage = self._security
        return b"\x01" + _NO_AUTHENTICATION

    def _security(self) -> bytes:
        chosen = self._take(1)
        if chosen is None:
            return b""
        if chosen != _NO_AUTHENTICATION:
            raise DriverError("RFB_SECURITY: the address was the secret, there is no other")
        self._stage = self._shared
        return struct.pack(">I", 0)

    def _shared(self) -> bytes:
        if self._take(1) is None:
            return b""
        self._stage = self._message
        return (
            struct.pack(">HH", WIDTH, HEIGHT) + self._format.written() + struct.pack(">I", len(self._name)) + self._name
        )

    def _message(self) -> bytes:
        if not self._heard:
            return b""
        kind = self._heard[0]
        if kind not in _SIZES:
            raise DriverError(f"RFB_MESSAGE: no message has the number {kind}")
        message = self._take(_SIZES[kind])
        if message is None:
            return b""
        if kind == _SET_PIXEL_FORMAT:
            self._format, self._shown = PixelFormat.read(message[4:]), None
        elif kind == _SET_ENCODINGS:
            count = struct.unpack(">H", message[2:])[0]
            if count > _MOST_ENCODINGS:
                raise DriverError(f"RFB_ENCODINGS: {count} encodings are too many")
            self._skip = 4 * count  # Raw is understood by all.
        elif kind == _UPDATE_REQUEST:
            self._wanted = True
            if not message[1]:
                self._shown = None
        elif kind == _KEY:
            down, key = struct.unpack(">xBxxI", message)
            if down and (32 <= key < 127 or key == _BACKSPACE):
                self._typed(chr(key) if key != _BACKSPACE else "\b")
        elif kind == _CUT_TEXT:
            self._skip = struct.unpack(">4xI", message)[0]
        return b""
