"""The frames of one guest, seen where they come from: at its tap, on every host, with the kernel's own time of each.

Whatever agents and control plane say: what a port's MAC address has sent from two hosts by turns, two guests have sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import selectors
import socket
import struct
import threading
from collections.abc import Mapping
from itertools import groupby

from cumulet.drivers.linux_network import names, namespaces

_ALL, _OUTGOING = 3, 4
"""ETH_P_ALL; PACKET_OUTGOING: what the host sends to its guest."""
_SO_TIMESTAMPNS, _SO_ATTACH_FILTER = 35, 26
_RECEIVE_BUFFER_BYTES = 4 << 20
_LOAD_WORD, _LOAD_HALF, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x15, 0x06
_SENDER_AT = 6


class FrameWatch:
    """Listens from `__enter__` to `__exit__`, in a thread of its own. As root."""

    def __init__(self, port_id: str, mac: str, networks: Mapping[str, str]) -> None:
        """`networks`: the namespace of each host."""
        self._tap = names.tap(port_id)
        self._mac = bytes.fromhex(mac.replace(":", ""))
        self._networks = dict(networks)
        self.frames: list[tuple[int, str]] = []
        """When, in ns since the epoch, and on which host."""
        self._heard = threading.Condition()
        self._stack = contextlib.ExitStack()
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, name="frames", daemon=True)

    def __enter__(self) -> FrameWatch:
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._theirs, selectors.EVENT_READ)
        for host, namespace in self._networks.items():
            listening = self._stack.enter_context(_listening(namespace, self._mac))
            self._selector.register(listening, selectors.EVENT_READ, host)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._thread.join()
        self._selector.close()
        self._theirs.close()
        self._stack.close()

    def _listen(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                assert isinstance(key.fileobj, socket.socket)
                frame, said, _, (device, _, kind, *_) = key.fileobj.recvmsg(64, 64)
                # The first frames may have come before the filter.
                if device == self._tap and kind != _OUTGOING and frame[_SENDER_AT:][:6] == self._mac:
                    seconds, ns = struct.unpack("@qq", said[0][2])
                    with self._heard:
                        self.frames.append((seconds * 1_000_000_000 + ns, key.data))
                        self._heard.notify_all()

    def until(self, count: int) -> None:
        """So many frames have been heard."""
        with self._heard:
            assert self._heard.wait_for(lambda: len(self.frames) >= count, timeout=10), self.frames

    # -- the judgement

    def turns(self) -> list[tuple[str, int]]:
        """The hosts the guest was heard from, in order, with how many frames each."""
        return [(host, len(list(some))) for host, some in groupby(host for _, host in sorted(self.frames))]

    def double(self) -> list[str]:
        """Signs that two copies had the network: one was heard from again after another host's was."""
        turns = self.turns()
        return [f"frames came by turns: {turns}"] if len({host for host, _ in turns}) < len(turns) else []


def _listening(namespace: str, mac: bytes) -> socket.socket:
    """Hears all devices of a namespace; the kernel lets only frames of this sender through to it."""
    with namespaces.inside(namespace):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        high, low = struct.unpack("!IH", mac)
        program = (
            (_LOAD_WORD, 0, 0, _SENDER_AT),
            (_JUMP_EQUAL, 0, 3, high),
            (_LOAD_HALF, 0, 0, _SENDER_AT + 4),
            (_JUMP_EQUAL, 0, 1, low),
            (_RETURN, 0, 0, 64),
            (_RETURN, 0, 0, 0),
        )
        code = ctypes.create_string_buffer(b"".join(struct.pack("@HBBI", *line) for line in program))
        made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
    except BaseException:
        made.close()
        raise
    return made
