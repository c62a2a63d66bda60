"""What is said on one connection: uvicorn's protocol of HTTP, bounded for slow and hostile clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sized
from typing import cast

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cumulet.web.connections import CONNECTION, Connection, Connections, Link
from cumulet.web.transport import STALLED_SECONDS, Gathering, end_for_our_error
from cumulet.web.websockets import WebSocketConnection

log = logging.getLogger(__name__)

LARGEST_HEAD = 65_536
"""Bytes of a request line and its headers (tokens may be large)."""
HEAD_SECONDS = 20.0
"""How long a client may take to send them; also how long a connection may idle before its first request."""
DRAINED_BYTES = 64 << 20
"""Bytes of a body that are still read after its answer: most clients read no answer before they have sent all."""
DRAIN_SECONDS = 30.0
"""How long they are read."""
MOST_FIELDS = 256
"""Fields of a head."""
MOST_WAITING = 16
"""Requests of one connection that wait behind another (pipelining). They are answered, and then it ends."""
REQUEST_BYTES = 2560
"""What a request takes in memory beside the bytes that were sent."""
FIELD_BYTES = 128
"""The same of each field of its head."""


class _Flow(FlowControl):
    """Reads no more while requests wait behind another: uvicorn would, for each of them that has a body."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


class HttpConnection(HttpToolsProtocol):
    """Closes connections whose request head is too large or too slow, or that take no answer; httptools bounds none."""

    _chunk_bytes = 0
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _stalled_timer: asyncio.TimerHandle | None = None
    _drain_timer: asyncio.TimerHandle | None = None
    """While a body goes on after its answer."""
    _drained = 0
    _in_head = True
    _in_body = False
    """Whether a request's head has come, and not all of its body yet."""
    _goes_on = False
    """Whether there was more of a body, or a head's end, in what came last."""
    _is_upgraded = False
    _is_last = False
    """Whether the last request that is answered has come whole."""
    _beside = 0
    """Bytes in a row that are no such thing: what is said of chunks, and after the last one."""

    def __init__(self, server: uvicorn.Server, admitted: Connections, connection: Connection) -> None:
        super().__init__(config=server.config, server_state=server.server_state, app_state=server.lifespan.state)
        self.access_log = False  # Ours is `web.app`'s, which leaves the query out, whatever others make of the loggers.
        self._admitted = admitted
        self._connection = connection
        self._link = Link(admitted, connection)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._connection.drop = transport.abort
        super().connection_made(Gathering(transport, self.loop))  # type: ignore[arg-type]
        self.flow = _Flow(self.transport, self.pipeline)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        self._drain_done()
        self.resume_writing()
        self._admitted.gone(self._connection)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """uvicorn's leaves the new protocol in its set for ever if wsproto fails at the head."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.send_400_response("A WebSocket begins where nothing else waits for its answer.")
            return
        pieces = [self.scope["method"].encode(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.scope["headers"]:
            pieces += [name, b": ", value, b"\r\n"]
        pieces.append(b"\r\n")
        socket = WebSocketConnection(
            self.config, self.server_state, self.app_state, admitted=self._admitted, connection=self._connection
        )
        try:
            socket.begin(self.transport, b"".join(pieces))
        except UnicodeError:
            self.send_400_response("The request for a WebSocket is malformed.")
            return
        self._admitted.serve(self._connection, known=True)
        self._is_upgraded = True
        if self.flow.write_paused:  # The answer before it was not taken yet.
            self.resume_writing()
            socket.pause_writing()
        self.connections.discard(self)
        self.transport.set_protocol(socket)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._admitted.pause(self._connection)
        if self._stalled_timer is None:
            self._stalled_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None
        self._admitted.go_on(self._connection)
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._is_last or self.transport.is_closing():
            return
        try:
            if self._in_head or not self.cycle.response_complete:
                self._admitted.hold(self._connection, len(data))
                if self.transport.is_closing():
                    return
            before = self._head_bytes if self._in_head else 0
            self._chunk_bytes = len(data)
            self._goes_on = False
            super().data_received(data)
            if self._in_head:
                self._bound_head(before + len(data))
            elif self._in_body:
                self._bound_body(len(data))
            elif self.timeout_keep_alive_task is None and self._is_idle():
                # What came was the end of a body that has its answer already, or nothing.
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        except Exception:
            end_for_our_error(self.transport)

    def on_message_begin(self) -> None:
        waiting = len(self.pipeline)
        if waiting and (waiting >= MOST_WAITING or self._admitted.crowded(self._connection)):
            raise ValueError("too many requests wait behind another")
        self._in_head, self._connection.whole = True, False
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[CONNECTION] = self._link

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # It comes after a body, and says nothing that we ask for (RFC 9110, 6.5.1).
        if len(self.headers) == MOST_FIELDS:
            raise ValueError("the request's head has too many fields")
        # As uvicorn's, which it takes as long to call as to do.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._goes_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        if self._drain_timer is not None:
            self._drain_done()
        super().on_message_complete()
        if self.cycle is not None and not self.cycle.response_complete:  # There is none before a WebSocket.
            self._admitted.serve(self._connection, known=self._connection.known)

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]  # All is there: it need not wait for the next pass.
        super().on_response_complete()
        if self.cycle.response_complete:
            self._admitted.rest(self._connection)
            if self._in_body and not self.transport.is_closing():
                self._drained = 0
                self._drain_timer = self.loop.call_later(DRAIN_SECONDS, self.transport.close)
        else:
            self._admitted.answered(self._connection)
            self.flow.resume_reading()

    def on_headers_complete(self) -> None:
        # A head that came in one piece was not counted yet; few are so large that it must be.
        if self._head_bytes + self._chunk_bytes > LARGEST_HEAD:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > LARGEST_HEAD:
                raise ValueError("the request's head is too large")
        self._head_done()
        if self.cycle is not None and not self.cycle.response_complete:
            self._admitted.hold(self._connection, REQUEST_BYTES + FIELD_BYTES * len(self.headers))
            if self.transport.is_closing():
                raise ValueError("the connection was dropped")
        self._in_body = self._goes_on = True
        self._beside = 0
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing() or self._ends_after_answers():
            return
        if self._in_body and self.cycle is not None and self.cycle.response_started:
            self.transport.close()  # It would be taken for a part of the answer, or for the next one.
        else:
            super().send_400_response(msg)

    def _ends_after_answers(self) -> bool:
        """Whether whole requests wait for answers. If so, the connection takes in no other, and ends after these."""
        if self.cycle is None or self.cycle.response_complete or self._in_body:
            return False
        self.cycle.keep_alive = False
        self._is_last = True
        self._head_done()
        return True

    def _refuse_head(self) -> None:
        if self._ends_after_answers():
            return
        answer = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        self.transport.write(answer)
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_done(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head and self.transport is not None:
            self.transport.close()

    def _bound_head(self, size: int) -> None:
        """So many bytes of a request's head have come, and not all of it yet."""
        self._head_bytes = size
        if size > LARGEST_HEAD:
            self._refuse_head()
        elif self._head_timer is None:
            self._await_head()

    def _bound_body(self, size: int) -> None:
        """So many bytes came while a request's body goes on."""
        self._beside = 0 if self._goes_on else self._beside + size
        if self._beside > LARGEST_HEAD:
            self.send_400_response("Too much is said beside the body.")
        elif self._drain_timer is not None:
            self._drained += size
            if self._drained > DRAINED_BYTES:
                self.transport.close()

    def _is_idle(self) -> bool:
        return not self._is_upgraded and self.cycle is not None and self.cycle.response_complete

    def _drain_done(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
