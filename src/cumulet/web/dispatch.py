"""One request and its answer: the same steps in the same order for every operation of every service.

Token to caller (401), place of the path (404, 405), microversion (400, 406), media type (415), operation (400, 404,
501), query and body (400), then inside one transaction: target in the caller's sight (404), rules (403), handler.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator

import msgspec
from msgspec import UNSET

from cumulet.db.engine import Tx
from cumulet.db.fair_queue import served
from cumulet.errors import ApiError, BadRequest
from cumulet.web import faults, media, refusals
from cumulet.web.answers import Answer, encoded, success
from cumulet.web.asgi import Message, Receive, Scope, Send, base_url, query_pairs, token_of
from cumulet.web.bodies import LARGEST_PUBLIC_BODY, LONG_BODY, whole_body
from cumulet.web.connections import CONNECTION
from cumulet.web.context import Cloud
from cumulet.web.dialect import KEYSTONE
from cumulet.web.gaps import Gap
from cumulet.web.json_reader import LARGEST_BODY, read_json
from cumulet.web.negotiation import HEADER, Negotiated, UnacceptableVersion, negotiate
from cumulet.web.operation import Call, Caller, Headers, Microversion, Operation, Query, Refused, Service, parameters_of
from cumulet.web.perform import apply_rules, authoriser, facts_of, perform, unbound
from cumulet.web.router import Place, Router, select
from cumulet.web.schema import Empty, most_values_of, plan
from cumulet.web.turns import Turns
from cumulet.web.unsent import Unsent, send_pieces, send_whole

log = logging.getLogger(__name__)

ANONYMOUS = Caller(user_id="", user_name="", user_domain_id="", roles=frozenset())
"""The caller of public operations."""

_ONCE = frozenset({b"x-auth-token", b"x-subject-token", b"host", b"authorization", b"content-type", b"content-length"})
"""Headers that say who asks, for what, or how the body is read. A request that has one of them twice is refused."""
_GLOBAL_REQUEST_ID = re.compile(rb"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """What every request needs: the cloud, and the checked operations by their places."""

    cloud: Cloud
    router: Router
    turns: Turns = msgspec.field(default_factory=Turns)
    unsent: Unsent = msgspec.field(default_factory=Unsent)


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_lane", "_turn", "action", "base_url", "caller", "headers", "known", "method", "negotiated", "path", "receive",
        "registry", "repeated", "request_id", "scope", "send", "service", "status",
    )  # fmt: skip

    def __init__(self, registry: Registry, scope: Scope, receive: Receive, send: Send, *, lane: str = "") -> None:
        """`lane`: the lane that this request had its first turn in."""
        self._lane = lane
        self._turn = registry.turns.now
        self.registry = registry
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        raw: bytes | None = scope.get("raw_path")
        self.path = raw.decode("latin-1") if raw is not None else scope["path"]
        wanted: dict[bytes, bytes] = {}
        self.repeated: bytes | None = None
        """The name of a header that was sent twice and must not be."""
        for name, value in scope["headers"]:
            if name in _ONCE and name in wanted:
                self.repeated = name
            wanted[name] = wanted[name] + b"," + value if name == HEADER and name in wanted else value
        self.headers = wanted
        self.request_id = "req-" + registry.cloud.clock.uuid()
        self.base_url = registry.cloud.settings.public_url or base_url(scope, wanted)
        self.service: Service | None = None
        self.negotiated: Negotiated | None = None
        self.caller: Caller | None = None
        self.known = False
        """Whether a token said who the caller is."""
        self.action: str | None = None
        self.status = 0

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.method not in ("GET", "HEAD", "OPTIONS")

    @property
    def client(self) -> str:
        """The address the request came from."""
        return (self.scope.get("client") or ("",))[0]

    @property
    def global_request_id(self) -> str | None:
        """The id a client gave to a chain of requests; anything but ``req-<uuid>`` is ignored."""
        given = self.headers.get(b"x-openstack-request-id", b"")
        return given.decode() if _GLOBAL_REQUEST_ID.match(given) else None

    async def run(self) -> None:
        """Answer the request, whatever happens."""
        version_headers: tuple[tuple[bytes, bytes], ...] | None = None
        held = 0
        try:
            answer = await self._answer()
            held = self.registry.unsent.take(self._lane, answer)
        except UnacceptableVersion as refused:
            version_headers = refused.headers
            answer = self._fault(refused.error)
            faults.let_go(refused)
        except Exception as error:
            answer = self._fault(error)
            faults.let_go(error)
        try:
            await self.respond(answer, version_headers)
        finally:
            self.registry.unsent.give(self._lane, held)

    async def respond_error(
        self, error: Exception, version_headers: tuple[tuple[bytes, bytes], ...] | None = None
    ) -> None:
        await self.respond(self._fault(error), version_headers)

    async def respond(self, answer: Answer, version_headers: tuple[tuple[bytes, bytes], ...] | None = None) -> None:
        status, headers, body = answer
        await self._in_turn()
        if version_headers is None:
            version_headers = self.negotiated.headers if self.negotiated is not None else ()
        self.status = status
        await self._send(status, [*headers, *version_headers, *self._request_ids()], body)

    def _request_ids(self) -> list[tuple[bytes, bytes]]:
        own = self.request_id.encode()
        ids = [(b"x-openstack-request-id", own)]
        if self.service is not None and (second := self.service.dialect.request_id_header) is not None:
            ids.append((second, own))
        return ids

    # -- the steps

    async def _answer(self) -> Answer:
        registry = self.registry
        path = registry.router.without_suffix(self.path)
        found, project_id = registry.router.find(path), None
        if found is None and (older := registry.router.find_below_project(path)) is not None:
            found, project_id = older[:2], older[2]
        service = self.service = found[0].service if found is not None else registry.router.service_at(path)
        if service is None:
            raise faults.not_found()
        public = found is not None and self._is_public(found[0])
        caller = ANONYMOUS if public else await self.caller_of_token(service.type)
        if caller is None:
            raise faults.unauthenticated(self.base_url)
        self.caller = caller
        if caller is not ANONYMOUS:
            self.known = True
            lane = f"project {caller.project_id}" if caller.project_id else f"user {caller.user_id}"
            if (connection := self.scope.get(CONNECTION)) is not None:
                connection.known(lane)
            served.set(lane)
            if lane != self._lane:
                self._lane = lane
                await self._next_turn()
        if found is None:
            raise faults.not_found()
        place, values = found
        method = self.method
        if method == "HEAD" and "HEAD" not in place.operations and service.dialect.head_is_get:
            method = "GET"
        self._require_method(place, method)
        self.negotiated = negotiated = negotiate(service, self.headers)
        media.require_json(service.dialect, negotiated.version, method, self.headers, place.operations.get(method, []))
        if any("\0" in value for value in values):
            raise faults.not_found()  # No name has a NUL, and PostgreSQL refuses one.
        version = negotiated.version
        operation, body = await self._operation(place, values, method)
        if project_id is not None and project_id != caller.project_id:
            raise BadRequest("Malformed request URL: its project_id is not the one of the token.")
        call = self._call(version, dict(zip(operation.path_parameters, values, strict=True)))
        call.authorise = authoriser(call, operation)
        try:
            if service.dialect.rules_before_body and operation.target is None and operation.facts is None:
                apply_rules(operation, call)
            call.query = query = Query(query_pairs(self.scope.get("query_string", b"")))
            if operation.query is not None:
                call.parameters = plan(operation.query, version).read_query(query.pairs)
            call.body = self._body(operation, body)
            if operation.raw_body:
                from starlette.requests import Request  # The import takes 15 ms, which most starts need not spend.

                call.request = Request(self.scope, self._receive_in_turn)
            answer = success(operation, await perform(operation, call))
            if call.proved is not None:
                self.caller = msgspec.structs.replace(caller, user_id=call.proved)
            return answer
        finally:
            call.authorise = unbound  # It refers to the call: no circle is left to the garbage collector.

    async def _in_turn(self) -> None:
        """Go on after a wait: if the turn is over, wait for the caller's next one."""
        if self._turn != self.registry.turns.now:
            await self._next_turn()

    async def _next_turn(self) -> None:
        self._turn = await self.registry.turns.take(self._lane)

    async def _receive_in_turn(self) -> Message:
        message = await self.receive()
        await self._in_turn()
        return message

    def _call(self, version: Microversion, path: dict[str, str]) -> Call[object, object]:
        """A call with everything known before the operation is chosen."""
        assert self.caller is not None
        assert self.service is not None
        return Call(
            caller=self.caller,
            version=version,
            path=path,
            query=Query([]),
            body=None,
            target=None,
            cloud=self.registry.cloud,
            request_id=self.request_id,
            base_url=self.base_url,
            service_url=self.base_url + self.service.prefix,
            now_us=self.registry.cloud.clock.now_us(),
            authorise=unbound,
            method=self.method,
            headers=Headers(self.scope["headers"]),
            parameters=None,
            client=self.client,
        )

    def _is_public(self, place: Place) -> bool:
        method = "GET" if self.method == "HEAD" and "HEAD" not in place.operations else self.method
        operations = place.operations.get(method)
        return bool(operations) and all(operation.public for operation in operations or ())

    async def caller_of_token(self, service: str) -> Caller | None:
        """The caller of the request's token; None: there is no live token."""
        token = token_of(self.headers)
        if not token:
            return None
        return await self.registry.cloud.identity.authenticate(
            token.decode("latin-1"), service=service, method=self.method, path=self.path
        )

    def _require_method(self, place: Place, method: str) -> None:
        if method in place.operations or method in place.gaps or (method == "POST" and place.has_actions()):
            return
        if place.service.dialect.knows_405:
            raise faults.not_allowed(place.methods())
        raise faults.not_found()

    async def _operation(self, place: Place, values: tuple[str, ...], method: str) -> tuple[Operation, object]:
        """The operation that was asked for, and the JSON of its body (UNSET: no body was sent)."""
        body: object = UNSET
        action: str | None = None
        if method == "POST" and place.has_actions():
            body = await self._read()
            action = self.action = _action_of(body)
            candidates = place.actions.get(action)
            gap = place.gap_actions.get(action)
            if candidates is None and gap is None and method not in place.operations:
                raise BadRequest(f"There is no such action: {refusals.echo(action)}")
        else:
            candidates, gap = place.operations.get(method), place.gaps.get(method)
        if candidates is None:
            if gap is not None:
                await self._admit_to_gap(gap, values)
                raise faults.gap_error(gap)
            candidates = place.operations[method]
        assert self.negotiated is not None
        operation = select(candidates, self.negotiated.version)
        if operation is None:
            raise faults.not_found()
        if body is UNSET and operation.body is not None and not operation.raw_body:
            if (most_values := most_values_of(operation.body)) is not None:
                self._require_rules(operation)
            body = await self._read(most_values)
        return operation, body

    def _require_rules(self, operation: Operation) -> None:
        """Of one whose bodies may have more values than others', before one is read."""
        assert self.negotiated is not None
        call = self._call(self.negotiated.version, {})
        call.authorise = authoriser(call, operation)
        try:
            apply_rules(operation, call)
        finally:
            call.authorise = unbound

    async def _admit_to_gap(self, gap: Gap, values: tuple[str, ...]) -> None:
        """Refuse what is not offered yet as it would be refused if it were: microversion, target in sight, rule."""
        assert self.negotiated is not None
        if not gap.gone and not gap.exists(self.negotiated.version):
            raise faults.not_found()
        admission = gap.admission()
        if admission is None or gap.gone:
            return
        rule, target = admission
        call = self._call(self.negotiated.version, dict(zip(parameters_of(gap.path), values, strict=True)))

        def admit(tx: Tx) -> None:
            call.tx = tx
            call.target = target(call) if target is not None else None
            if not call.cloud.policy.check(rule, call.caller, facts_of(call)):
                raise Refused(rule)

        await call.cloud.db.read_async(admit)

    async def _read(self, most_values: int | None = None) -> object:
        largest = LARGEST_PUBLIC_BODY if self.caller is ANONYMOUS else LARGEST_BODY
        data = await whole_body(self.receive, self.headers.get(b"content-length"), largest)
        await self._in_turn()
        value = read_json(data, most_values) if data else UNSET
        if len(data) > LONG_BODY:
            await self._next_turn()
        return value

    def _body(self, operation: Operation, sent: object) -> object:
        """The body as an instance of its class; the envelope's key is checked here, its content by the schema."""
        if operation.body is None or operation.raw_body:
            return None
        assert self.negotiated is not None
        shape = plan(operation.body, self.negotiated.version)
        if operation.action is not None:
            assert isinstance(sent, dict)  # `_action_of` has checked it.
            return shape.read(sent[operation.action], operation.action)
        if sent is UNSET:
            if issubclass(operation.body, Empty):
                return shape.read(None, None)
            sent = None
        key = operation.body_key
        if key is None:
            return shape.read(sent, None)
        if not isinstance(sent, dict):
            raise BadRequest(f"{refusals.echo(sent)} is not of type 'object'")
        if key not in sent:
            raise BadRequest(refusals.missing(key))
        if len(sent) > 1:
            raise BadRequest(refusals.unexpected(name for name in sent if name != key))
        return shape.read(sent[key], key)

    # -- the answer

    def _fault(self, error: Exception) -> Answer:
        dialect = self.service.dialect if self.service is not None else KEYSTONE
        if not isinstance(error, ApiError):
            error = faults.unexpected(error, self.request_id)
        elif error.private:
            log.info("refused: %s", error.private, extra={"request_id": self.request_id})
        status = faults.status_of(error, dialect)
        headers = encoded(error.headers)
        accept = self.headers.get(b"accept", b"").decode("latin-1")
        kind, body = faults.fault_body(dialect, status, error, self.request_id, accept)
        headers.append((b"content-type", kind.encode()))
        if error.reason and self.caller is not None and self.caller.is_admin:
            headers.append((b"x-cumulet-reason", error.reason.encode("ascii", "replace")))
            if error.private:
                headers.append((b"x-cumulet-details", faults.header_text(error.private)))
        return status, headers, body

    async def _send(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes | AsyncIterator[bytes]) -> None:
        if isinstance(body, bytes) and status != 204 and not any(name == b"content-length" for name, _ in headers):
            headers.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        if self.method == "HEAD":
            await send_whole(self.send, b"", self._next_turn)
        elif isinstance(body, bytes):
            await send_whole(self.send, body, self._next_turn)
        else:
            await send_pieces(self.send, body, self._next_turn)


def _action_of(body: object) -> str:
    """The one key of an action's body."""
    if body is UNSET or (isinstance(body, dict | list | str) and len(body) != 1):
        raise BadRequest("Malformed request body")
    if not isinstance(body, dict):
        # Nova looks for an action in the value, finds none, and answers 404.
        raise faults.not_found()
    name: str = next(iter(body))
    return name
