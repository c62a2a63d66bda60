"""A process with an API: requests go through the real dispatcher, and end when the process is killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import Context

from sqlalchemy.exc import DBAPIError
from starlette.types import Receive, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from cumulet.compute.console_door import ConsoleDoor
from cumulet.compute.consoles import DOOR
from cumulet.testing.simulation.database import FOR_THE_API
from cumulet.testing.simulation.foundation import Answered, request
from cumulet.testing.simulation.life import LIFE, Life
from cumulet.testing.simulation.process import Process
from cumulet.web.app import App
from cumulet.web.context import Cloud

NO_ANSWER = 0
"""The status of a request whose API died."""


class Api:
    """One of several APIs on the same database. A killed API starts anew at once; its `process` stays the same."""

    def __init__(self, process: Process, app: App, cloud: Cloud, mend: Callable[[], None]) -> None:
        """`mend`: what a process does at its start."""
        self._mend = mend
        self.process = process
        self._app = app
        self._cloud = cloud
        self._door = ConsoleDoor()
        self._talks: dict[asyncio.Task[None], Life] = {}
        self._is_up = True
        self._requests: dict[asyncio.Task[Answered], Life] = {}

    def kill(self) -> int:
        """Kill the API. Requests under way end where they wait, without an answer; returns how many."""
        self._is_up = False
        for task, life in (*self._requests.items(), *self._talks.items()):
            life.over = True
            task.cancel()
        self._door = ConsoleDoor()
        return len(self._requests)

    def start(self) -> None:
        """It looks first for what its uploads have left."""
        with contextlib.suppress(DBAPIError):
            self._mend()
        self._is_up = True

    async def request(self, caller: str, method: str, path: str, body: object, version: str) -> Answered:
        """Status and JSON, or `NO_ANSWER` and None."""
        if not self._is_up:
            return NO_ANSWER, None
        life = Life()
        task = Context().run(asyncio.ensure_future, self._serve(life, caller, method, path, body, version))
        self._requests[task] = life
        task.add_done_callback(self._requests.pop)
        await asyncio.wait({task})
        return (NO_ANSWER, None) if task.cancelled() else task.result()

    async def _serve(self, life: Life, caller: str, method: str, path: str, body: object, version: str) -> Answered:
        LIFE.set(life)
        FOR_THE_API.set(True)
        return await request(self._app, caller, method, path, body, version=version)

    @property
    def on_consoles(self) -> int:
        """How many sessions on consoles it counts."""
        return self._door.sessions

    async def talk(self, token: str, receive: Receive, send: Send) -> None:
        """A WebSocket to a serial console, until it is over; the end of the process ends it too."""
        if not self._is_up:
            return
        query = f"token={token}".encode()
        scope = {"type": "websocket", "path": f"{DOOR}serial", "query_string": query, "headers": [], "subprotocols": []}
        life = Life()
        task = asyncio.ensure_future(self._relay(life, WebSocket(scope, receive, send)))
        self._talks[task] = life
        task.add_done_callback(self._talks.pop)
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, DBAPIError):
            raise error

    async def _relay(self, life: Life, socket: WebSocket) -> None:
        LIFE.set(life)
        with contextlib.suppress(WebSocketDisconnect):
            await self._door.talk(self._cloud, "serial", socket)
