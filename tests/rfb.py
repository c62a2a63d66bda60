"""A client of RFB 3.8 (RFC 6143), as far as tests need one: a handshake, and a picture of the whole screen."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Protocol

BLACK = b"\0\0\0"


class Line(Protocol):
    """Bytes both ways; nothing is read from one that is closed."""

    async def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...


@dataclass(slots=True)
class Picture:
    """Pixels row by row, of three bytes each: blue, green, red."""

    width: int
    height: int
    pixels: bytes

    def at(self, column: int, row: int) -> bytes:
        start = 3 * (row * self.width + column)
        return self.pixels[start : start + 3]

    @property
    def colours(self) -> int:
        return len({self.pixels[start : start + 3] for start in range(0, len(self.pixels), 3)})


@dataclass(slots=True)
class Viewer:
    """Somebody at a screen."""

    line: Line
    name: str = ""
    width: int = 0
    height: int = 0
    _read: bytearray = field(default_factory=bytearray)
    _pixels: bytearray = field(default_factory=bytearray)

    async def take(self, size: int) -> bytes:
        while len(self._read) < size:
            data = await self.line.read()
            assert data, f"the connection has ended after {bytes(self._read[:100])!r}"
            self._read += data
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    async def shake_hands(self) -> None:
        assert await self.take(12) == b"RFB 003.008\n"
        self.line.write(b"RFB 003.008\n")
        assert await self.take(2) == b"\x01\x01", "no other secret than the address"
        self.line.write(b"\x01")
        assert await self.take(4) == bytes(4)
        self.line.write(b"\x01")
        self.width, self.height, _, length = struct.unpack(">HH16sI", await self.take(24))
        self.name = (await self.take(length)).decode()
        pixels = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        self.line.write(struct.pack(">B3x", 0) + pixels)
        self.line.write(struct.pack(">BxHii", 2, 2, 0, -223))  # Raw, and that the screen may change its size.
        self._pixels = bytearray(3 * self.width * self.height)

    async def picture(self, *, whole: bool = True) -> Picture:
        """All of the screen, or once anything of it has changed."""
        self.line.write(struct.pack(">BBHHHH", 3, not whole, 0, 0, self.width, self.height))
        while True:
            kind = (await self.take(1))[0]
            if kind == 2:  # The bell.
                continue
            assert kind == 0, f"message {kind}"
            for _ in range(struct.unpack(">xH", await self.take(3))[0]):
                await self._rectangle()
            return Picture(self.width, self.height, bytes(self._pixels))

    async def _rectangle(self) -> None:
        left, top, width, height, encoding = struct.unpack(">HHHHi", await self.take(12))
        if encoding == -223:
            self.width, self.height, self._pixels = width, height, bytearray(3 * width * height)
            return
        assert encoding == 0, f"encoding {encoding}"
        raw = await self.take(4 * width * height)
        for row in range(height):
            line = bytearray(3 * width)
            for part in range(3):
                line[part::3] = raw[4 * width * row + part : 4 * width * (row + 1) : 4]
            start = 3 * ((top + row) * self.width + left)
            self._pixels[start : start + 3 * width] = line

    def press(self, keys: str) -> None:
        for key in keys:
            for down in (1, 0):
                self.line.write(struct.pack(">BBxxI", 4, down, ord(key)))
