"""The ASGI application of one cloud: all services behind one callable.

Beside the services: ``/`` and the version documents, ``/healthz``, ``/readyz``, ``/metrics``. Around each request:
metrics, the access log, the audit trail. `web.dispatch` has the steps of a request in between.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Iterable

import msgspec
from starlette.websockets import WebSocket

from cumulet.db.fair_queue import served
from cumulet.db.health import problem_of
from cumulet.errors import BadRequest, InsufficientStorage, MethodNotAllowed, NotFound
from cumulet.web import doors, faults
from cumulet.web.answers import Answer
from cumulet.web.asgi import Receive, Scope, Send
from cumulet.web.audit import LONGEST_PATH, Audit
from cumulet.web.connections import CONNECTION
from cumulet.web.context import Cloud
from cumulet.web.dispatch import Exchange, Registry
from cumulet.web.documents import documents
from cumulet.web.gaps import gaps
from cumulet.web.metrics import RequestMetrics
from cumulet.web.negotiation import UnacceptableVersion, negotiate
from cumulet.web.operation import Operation, Refused, Service
from cumulet.web.peer import peer_of
from cumulet.web.router import Router
from cumulet.web.sampling import WINDOW_SECONDS, Sampling
from cumulet.web.schema import most_values_of

access_log = logging.getLogger("cumulet.access")
_encode = msgspec.json.Encoder().encode
_JSON = (b"content-type", b"application/json")


def _takes_more(operation: Operation) -> bool:
    return operation.body is not None and most_values_of(operation.body) is not None


class App:
    """All services of one cloud behind one ASGI callable."""

    def __init__(
        self, cloud: Cloud, services: Iterable[Service], *, audit: Audit | None = None, scraper_token: str | None = None
    ) -> None:
        """Build and check the registry; an operation that must not be served raises here and stops the start."""
        services = tuple(services)
        router = Router(services, gaps(services))
        operations = [operation for service in router.services for operation in service.operations]
        cloud.policy.require_known(rule.name for operation in operations for rule in operation.rules)
        for operation in operations:
            if operation.raw_body and not operation.asynchronous:
                raise TypeError(f"{operation.name}: an operation that streams is `async def`")
            if _takes_more(operation) and (operation.path_parameters or any(rule.when for rule in operation.rules)):
                raise TypeError(f"{operation.name}: the rules for so large a body are asked before it is read")
        self.cloud = cloud
        self.metrics = RequestMetrics()
        self.registry = Registry(cloud=cloud, router=router)
        self._audit = audit
        self._of_users, self._of_addresses = Sampling(), Sampling()
        self._telling: asyncio.TimerHandle | None = None
        self._scraper_token = scraper_token
        self._documents = documents(router.services)
        self._counts = [count for service in router.services for count in service.counts]
        self._doors = {prefix: door for service in router.services for prefix, door in service.doors.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Until a token was shown, the caller is its address. No request counts as the cloud's own work.
        lane = f"address {peer_of((scope.get('client') or ('',))[0])}"
        served.set(lane)
        started = time.perf_counter()
        connection = scope.get(CONNECTION)
        if connection is not None:
            lane = connection.lane or lane
        await self.registry.turns.take(lane)
        if scope["type"] == "websocket":
            await doors.talk(self._doors, self.cloud, WebSocket(scope, receive, send))
        if scope["type"] != "http":
            return
        exchange = Exchange(self.registry, scope, receive, send, lane=lane)
        try:
            await self._answer(exchange)
        finally:
            self._note(exchange, time.perf_counter() - started)

    async def _answer(self, exchange: Exchange) -> None:
        path = exchange.path
        if exchange.repeated is not None:
            name = exchange.repeated.decode("latin-1")
            await exchange.respond_error(BadRequest(f"The header {name} may be given only once."))
            return
        if exchange.scope.get("http_version") == "1.1" and b"host" not in exchange.headers:  # RFC 9112, 3.2
            await exchange.respond_error(BadRequest("The header host is missing."))
            return
        beside = self._documents.get(path.rstrip("/")) if len(path) < 32 else None
        reads = exchange.method in ("GET", "HEAD")
        if beside is not None and (reads or (beside[0] is not None and beside[0].dialect.root_knows_405)):
            try:
                await exchange.respond(self._document(exchange, *beside))
            except UnacceptableVersion as refused:
                await exchange.respond_error(refused.error, refused.headers)
            except (BadRequest, MethodNotAllowed) as refused:
                await exchange.respond_error(refused)
        elif reads and (door := doors.door_of(self._doors, path)) is not None:
            page = door[0].page(door[1])
            if page is None:
                await exchange.respond_error(NotFound("There is no such page."))
            else:
                await exchange.respond(page)
        elif path in ("/healthz", "/readyz"):
            await exchange.respond(await self._health(ready=path == "/readyz"))
        elif path == "/metrics":
            try:
                await self._metrics(exchange)
            except Exception as error:
                await exchange.respond_error(error)
        elif self._audit is not None and exchange.changes and self._audit.full(deletes=exchange.method == "DELETE"):
            full = "The audit trail cannot be written, so nothing can be changed now."
            await exchange.respond_error(InsufficientStorage(full, reason="STORAGE_FULL"))
        else:
            await exchange.run()

    def _document(self, exchange: Exchange, service: Service | None, document: object) -> Answer:
        assert callable(document)
        if service is not None and exchange.path.strip("/") == service.prefix.strip("/"):
            exchange.service = service
            exchange.negotiated = negotiate(service, exchange.headers)
        if exchange.method not in ("GET", "HEAD"):
            raise faults.not_allowed(["GET"])
        status, content = document(exchange.base_url)
        headers = [_JSON]
        if service is not None and exchange.negotiated is not None:
            more = service.dialect.document_headers(exchange.negotiated.version, self.cloud.clock.now_us())
            headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
        return status, headers, _encode(content)

    async def _health(self, *, ready: bool) -> Answer:
        """Whether the database answers, which most requests need; with `ready`, also whether hosts can be asked and
        certificates are good."""
        problem = await problem_of(self.cloud.db)
        if problem is None and ready and self.cloud.presence is not None:
            problem = self.cloud.presence.problem()
        if problem is None and ready:
            ended = [one.name for one in self.cloud.certificates() if one.days_left < 0]
            problem = f"the certificate of {ended[0]} has ended" if ended else None
        return 200 if problem is None else 503, [_JSON], _encode({"status": problem or "ok"})

    async def _metrics(self, exchange: Exchange) -> None:
        if not self._is_scraper(exchange):
            caller = await exchange.caller_of_token("metrics")
            if caller is None:
                await exchange.respond_error(faults.unauthenticated(exchange.base_url))
                return
            if not caller.is_admin:
                await exchange.respond_error(Refused("metrics"))
                return
        headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
        counts = [one for count in self._counts for one in await count(self.cloud)]
        await exchange.respond((200, headers, self.metrics.text(counts)))

    def _is_scraper(self, exchange: Exchange) -> bool:
        """Whether the request shows the credential for `/metrics` (`web.scraper`)."""
        scheme, _, shown = exchange.headers.get(b"authorization", b"").partition(b" ")
        if self._scraper_token is None or scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(shown.strip(), self._scraper_token.encode())

    def _note(self, exchange: Exchange, seconds: float) -> None:
        """After the answer is sent: count and log the request, and record changes and refusals in the audit trail."""
        name = exchange.service.name if exchange.service is not None else ""
        status, method = exchange.status, exchange.method
        self.metrics.count(name, method, status, seconds)
        audited = self._audit is not None and bool(name) and (exchange.changes or status in (401, 403))
        # After an error of ours something may have changed: that is no refusal.
        refused = status >= 400 and (not exchange.known or (audited and status != 500))
        if refused and not self._keeps(exchange):
            if not exchange.known:
                return
            audited = False
        if access_log.isEnabledFor(logging.INFO):
            access_log.info(
                "%s %s",
                method,
                exchange.path[:LONGEST_PATH],
                extra={
                    "status": status,
                    "ms": round(seconds * 1000, 2),
                    "request_id": exchange.request_id,
                    "global_request_id": exchange.global_request_id,
                    "client": exchange.client,
                    "user_id": (exchange.caller.user_id or None) if exchange.caller is not None else None,
                    "project_id": exchange.caller.project_id if exchange.caller is not None else None,
                },
            )
        if self._audit is not None and audited:
            self._audit.record(
                time_us=self.cloud.clock.now_us(),
                request_id=exchange.request_id,
                caller=exchange.caller,
                client=exchange.client,
                service=name,
                method=method,
                path=exchange.path,
                action=exchange.action,
                status=status,
            )

    def _keeps(self, exchange: Exchange) -> bool:
        """Whether a refusal gets a line of its own. If not, it is counted; the count is written ten minutes later."""
        caller, now = exchange.caller, self.cloud.clock.monotonic()
        if exchange.known and caller is not None:
            kept = self._of_users.keep(caller.user_id, now)
        else:
            kept = self._of_addresses.keep(peer_of(exchange.client), now)
        if not kept and self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(WINDOW_SECONDS, self.tell_left_out)
        return kept

    def tell_left_out(self) -> None:
        """Write how many refusals have no line of their own, by user and by address."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        for sampling, by_user in ((self._of_users, True), (self._of_addresses, False)):
            for caller, number in sampling.left_out().items():
                user_id, client = (caller, None) if by_user else (None, caller)
                if not by_user:
                    access_log.info("refused", extra={"client": client, "left_out": number})
                if self._audit is not None:
                    self._audit.record_left_out(
                        time_us=self.cloud.clock.now_us(),
                        user_id=user_id or None,
                        client=client or None,
                        number=number,
                    )
