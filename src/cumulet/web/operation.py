"""An operation is declared once: route, versions, rules, body and handler stand together, in the feature's file.

    @COMPUTE.operation("POST", "/servers/{server_id}/action", action="os-migrateLive",
                       rules=(Rule(MIGRATE_LIVE), Rule(MIGRATE_LIVE_HOST, when="host")),
                       target=server_in_sight, body=MigrateLive, success=202)
    def migrate_live(call: Call[Server, MigrateLive]) -> None: ...

The dispatcher (`web.dispatch`) does the same things in the same order for every request: token to caller (401), place
(404, 405), microversion (406), media type (415), query and body (400), target in sight (404), rules (403).
"""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypedDict, TypeVar, Unpack, cast, overload

import msgspec

from cumulet.db.engine import Tx
from cumulet.errors import Forbidden
from cumulet.web.asgi import token_of
from cumulet.web.dialect import KEYSTONE, Dialect

if TYPE_CHECKING:
    from starlette.requests import Request

    from cumulet.web.context import Cloud
    from cumulet.web.doors import Door
    from cumulet.web.metrics import Count

TargetT_co = TypeVar("TargetT_co", covariant=True)
BodyT_co = TypeVar("BodyT_co", covariant=True)
TargetT = TypeVar("TargetT")
BodyT = TypeVar("BodyT")
CallT = TypeVar("CallT")
QueryT = TypeVar("QueryT")
AnswerT = TypeVar("AnswerT")

Facts = Mapping[str, object]
"""Attributes of a thing that policy rules may use, such as ``project_id``."""


class Microversion(msgspec.Struct, frozen=True, order=True):
    """``2.96``: ordered by its two numbers. Services without microversions use their one version."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Microversion:
        match = re.fullmatch(r"([1-9]\d*)\.([1-9]\d*|0)", text, re.ASCII)
        if match is None:
            raise ValueError(text)
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    def at_least(self, text: str) -> bool:
        """``version.at_least("2.47")``; the parsed bound is cached."""
        bound = _PARSED.get(text)
        if bound is None:
            bound = _PARSED[text] = Microversion.parse(text)
        return self >= bound


_PARSED: dict[str, Microversion] = {}
_PARAMETER = re.compile(r"\{(\w+)\}", re.ASCII)


def parameters_of(path: str) -> tuple[str, ...]:
    """``/servers/{server_id}/action`` -> ``("server_id",)``."""
    return tuple(_PARAMETER.findall(path))


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The user behind a request. The authenticator makes it from a live token, never from headers."""

    user_id: str
    user_name: str
    user_domain_id: str
    roles: frozenset[str]
    project_id: str | None = None
    project_name: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    system: bool = False
    token_id: str = ""
    """Audit id of the token; not a secret."""
    token: object = None
    """The identity service's own token object, which only that service reads (`identity.tokens.LiveToken.of`)."""

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles


class Rule(msgspec.Struct, frozen=True):
    """A policy rule the caller must pass. `when`: only if this body attribute was given and is not null."""

    name: str
    when: str | None = None


class Refused(Forbidden):
    """The caller does not pass a policy rule. Each service words this in its own way (`web.faults`)."""

    def __init__(self, rule: str) -> None:
        super().__init__(f"Policy doesn't allow {rule} to be performed.")
        self.rule = rule


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with its own status or headers.

    `body`: None means no content. Bytes, and the pieces of an asynchronous iterator of bytes, are sent unchanged.
    Anything else is encoded as JSON.
    """

    body: object = None
    status: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Query:
    """Query parameters in the order given; a name may repeat. Values are text, checked by the operation's schema."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def get(self, name: str, default: str | None = None) -> str | None:
        """The last value of `name`, as OpenStack services read it."""
        for key, value in reversed(self.pairs):
            if key == name:
                return value
        return default

    def getall(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.pairs)

    def names(self) -> list[str]:
        return list(dict.fromkeys(key for key, _ in self.pairs))


class Headers:
    """The request's headers; names in any case. Identity is never taken from here, only from the token."""

    __slots__ = ("_raw",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of `name`."""
        wanted = name.lower().encode("latin-1")
        for key, value in self._raw:
            if key == wanted:
                return value.decode("latin-1")
        return default

    @property
    def token(self) -> str:
        """The token in the request, from either header; empty: there is none. It is not checked here."""
        return token_of(dict(self._raw)).decode("latin-1")


class Call(msgspec.Struct, Generic[TargetT_co, BodyT_co], kw_only=True):
    """What a handler gets. Code that needs neither target nor body takes a `Call[object, object]`: every call is one.

    `def` handlers have `tx` (a write transaction; a read one for GET and HEAD); `async def` ones have none and use
    `cloud.db` themselves: for hashing, streams and questions to hosts.
    """

    caller: Caller
    version: Microversion
    path: Mapping[str, str]
    query: Query
    body: BodyT_co
    target: TargetT_co
    cloud: Cloud
    request_id: str
    base_url: str
    """``https://host:port``: where links begin (`web.asgi.base_url`)."""
    service_url: str
    """`base_url` and the service's prefix: for links."""
    now_us: int
    authorise: Callable[[str, Facts | None], bool]
    """Whether the caller passes a further rule (facts: default the target's). For fields that depend on a rule."""
    request: Request | None = None
    """Only for operations with a raw body. All operations have `headers`, `method` and `client`."""
    method: str = ""
    headers: Headers = msgspec.field(default_factory=lambda: Headers([]))
    parameters: object = None
    """The instance of the operation's query class, if it names one (`asked`); `query` has the pairs as they came."""
    client: str = ""
    """The address the request came from."""
    proved: str | None = None  # The user who has shown to a public operation who they are: for what is kept of it.
    tx: Tx = None  # type: ignore[assignment]

    def asked(self, query: type[QueryT]) -> QueryT:
        """The query parameters, as the operation's query class."""
        assert isinstance(self.parameters, query)
        return self.parameters

    def require(self, rule: str, facts: Facts | None = None) -> None:
        """Refuse with 403 unless the caller passes `rule`."""
        if not self.authorise(rule, facts):
            raise Refused(rule)


FindTarget = Callable[[Call[object, object]], object]
FactsOf = Callable[[CallT], Facts]


class Declare(Protocol[CallT]):
    """Declares a handler of such calls, and returns it unchanged."""

    def __call__(self, handler: Callable[[CallT], AnswerT], /) -> Callable[[CallT], AnswerT]: ...


class Declared(TypedDict, total=False):
    """Further arguments of `Service.operation`, which explains them."""

    rules: tuple[Rule, ...]
    action: str
    since: str | None
    until: str | None
    body_key: str
    query: type
    success: int
    public: bool
    raw_body: bool
    lookup: bool


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the registry."""

    service: Service
    method: str
    path: str
    action: str | None
    since: Microversion
    until: Microversion | None
    rules: tuple[Rule, ...]
    target: FindTarget | None
    facts: FactsOf[Call[object, object]] | None
    body: type | None
    body_key: str | None
    query: type | None
    success: int
    public: bool
    raw_body: bool
    lookup: bool
    handler: Callable[[Call[object, object]], object]
    """Only called with calls of its own target and body: the types of `Service.operation` see to that."""
    name: str
    summary: str
    path_parameters: tuple[str, ...]
    """Names of the values in its path, the service's prefix included, in their order."""
    asynchronous: bool
    """The handler is `async def` and uses `cloud.db` itself."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """An API under one path. `versions`: (minimum, maximum)."""

    name: str
    type: str
    prefix: str
    versions: tuple[Microversion, Microversion]
    microversioned: bool = False
    dialect: Dialect = KEYSTONE
    precondition: Callable[[Call[object, object]], None] | None = None
    """Checked for every call with a target after its rules, such as ``If-Match``. Raises if it is not met."""
    gaps: Path | None = None
    """The list of what is not offered yet (`web.gaps`)."""
    operations: list[Operation] = msgspec.field(default_factory=list)
    doors: dict[str, Door] = msgspec.field(default_factory=dict)
    """Its doors, by the beginning of their paths."""
    counts: list[Count] = msgspec.field(default_factory=list)
    gap_rules: dict[str, tuple[str, FindTarget | None]] = msgspec.field(default_factory=dict)
    """``METHOD PATH [ACTION]`` of a gap -> the rule and the target that the operation will have."""

    @overload
    def operation(
        self,
        method: str,
        path: str,
        *,
        target: Callable[[Call[None, BodyT]], TargetT],
        body: builtins.type[BodyT],
        facts: FactsOf[Call[TargetT, BodyT]] | None = None,
        **more: Unpack[Declared],
    ) -> Declare[Call[TargetT, BodyT]]: ...

    @overload
    def operation(
        self,
        method: str,
        path: str,
        *,
        target: Callable[[Call[None, None]], TargetT],
        facts: FactsOf[Call[TargetT, None]] | None = None,
        **more: Unpack[Declared],
    ) -> Declare[Call[TargetT, None]]: ...

    @overload
    def operation(
        self,
        method: str,
        path: str,
        *,
        body: builtins.type[BodyT],
        facts: FactsOf[Call[None, BodyT]] | None = None,
        **more: Unpack[Declared],
    ) -> Declare[Call[None, BodyT]]: ...

    @overload
    def operation(
        self,
        method: str,
        path: str,
        *,
        facts: FactsOf[Call[None, None]] | None = None,
        **more: Unpack[Declared],
    ) -> Declare[Call[None, None]]: ...

    def operation(
        self,
        method: str,
        path: str,
        *,
        target: Callable[[Call[None, BodyT]], object] | None = None,
        facts: Callable[[Call[TargetT, BodyT]], Facts] | None = None,
        body: builtins.type | None = None,
        **more: Unpack[Declared],
    ) -> Declare[Call[TargetT, BodyT]]:
        """Declare an operation of this service.

        rules: policy rules, all must pass; required unless `public` (no token needed) - `()` means "any valid token".
        action: the one key of a POST .../action body; the body class describes its value.
        since, until: first and last microversion that has it (inclusive).
        target: loads the thing named by the path within the caller's sight or raises NotFound; becomes `call.target`.
        facts: policy facts of the call; default: `project_id` and `user_id` of the target, else of the caller.
        body: class of the body (see `web.schema`); body_key: the envelope's key, e.g. ``server``.
        query: class of the query parameters; None means "unknown parameters are ignored".
        raw_body: the body is a stream, not JSON; the handler is `async def` and reads `call.request`.
        lookup: a GET that is a few lookups by key, however many rows there are: it may be done on the event loop.
        """
        rules, since, until = more.get("rules"), more.get("since"), more.get("until")
        public, raw_body = more.get("public", False), more.get("raw_body", False)
        if rules is None and not public:
            raise TypeError(f"{self.name} {method} {path}: an operation names its policy rules or is public")
        if method in ("POST", "PUT", "PATCH") and body is None and not raw_body:
            raise TypeError(
                f"{self.name} {method} {path}: an operation that takes a body names its class (Empty for none)"
            )

        def register(handler: Callable[[Call[TargetT, BodyT]], AnswerT]) -> Callable[[Call[TargetT, BodyT]], AnswerT]:
            doc = (handler.__doc__ or "").strip()
            if not doc:
                raise TypeError(f"{self.name} {method} {path}: the handler has no docstring")
            self.operations.append(
                Operation(
                    service=self,
                    method=method,
                    path=path,
                    action=more.get("action"),
                    since=Microversion.parse(since) if since else self.versions[0],
                    until=Microversion.parse(until) if until else None,
                    rules=rules or (),
                    target=cast("FindTarget | None", target),
                    facts=cast("FactsOf[Call[object, object]] | None", facts),
                    body=body,
                    body_key=more.get("body_key"),
                    query=more.get("query"),
                    success=more.get("success", 200),
                    public=public,
                    raw_body=raw_body,
                    lookup=more.get("lookup", False),
                    handler=cast("Callable[[Call[object, object]], object]", handler),
                    name=handler.__name__,
                    summary=doc.splitlines()[0],
                    path_parameters=parameters_of(self.prefix + path),
                    asynchronous=inspect.iscoroutinefunction(inspect.unwrap(handler)),
                )
            )
            return handler

        return register
