"""An API's process: requests through the real dispatcher, which end with it when it is killed."""

from __future__ import annotations

import asyncio
from contextvars import Context

from cumulet.testing.simulation.database import FOR_THE_API
from cumulet.testing.simulation.foundation import Answered, request
from cumulet.testing.simulation.process import Process
from cumulet.web.app import App

NO_ANSWER = 0
"""The status of a request whose API died."""


class Api:
    """One of several on the same database. `process` outlives its deaths: it is killed and starts anew at once."""

    def __init__(self, process: Process, app: App) -> None:
        self.process = process
        self._app = app
        self._is_up = True
        self._requests: dict[asyncio.Task[Answered], None] = {}

    def kill(self) -> int:
        """Requests under way end where they wait; nobody is told of what they did. Answers how many they were."""
        self._is_up = False
        for task in self._requests:
            task.cancel()
        return len(self._requests)

    def start(self) -> None:
        self._is_up = True

    async def request(self, caller: str, method: str, path: str, body: object, version: str) -> Answered:
        """Status and JSON, or `NO_ANSWER` and None."""
        if not self._is_up:
            return NO_ANSWER, None
        task = Context().run(asyncio.ensure_future, self._serve(caller, method, path, body, version))
        self._requests[task] = None
        task.add_done_callback(self._requests.pop)
        await asyncio.wait({task})
        return (NO_ANSWER, None) if task.cancelled() else task.result()

    async def _serve(self, caller: str, method: str, path: str, body: object, version: str) -> Answered:
        FOR_THE_API.set(True)
        return await request(self._app, caller, method, path, body, version=version)
