"""The Identity service's place in the registry, the rules its features share, and the shapes all its answers have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from cumulet.clock import Clock, iso_us, us_of
from cumulet.errors import BadRequest, Forbidden, NotFound
from cumulet.identity.dialect import IdentityDialect
from cumulet.identity.tokens import LiveToken
from cumulet.web.operation import Call, Microversion, Service
from cumulet.web.policy import Scope, base_rule

VERSION = Microversion(3, 14)

IDENTITY = Service(
    name="identity",
    type="identity",
    prefix="/identity/v3",
    versions=(VERSION, VERSION),
    dialect=IdentityDialect(),
    gaps=Path(__file__).with_name("gaps.txt"),
)
# Upstream's base rules that the rules below refer to; each feature's own rules stand in its file.
base_rule("admin_required", "role:admin or is_admin:1")
base_rule("service_role", "role:service")
base_rule("service_or_admin", "rule:admin_required or rule:service_role")
base_rule("owner", "user_id:%(user_id)s")
base_rule("admin_or_owner", "rule:admin_required or rule:owner")
base_rule("token_subject", "user_id:%(target.token.user_id)s")

SYSTEM_READER = "(role:reader and system_scope:all)"
ADMIN = "rule:admin_required"
ADMIN_OR_SYSTEM_READER = f"{ADMIN} or {SYSTEM_READER}"
ANYWHERE: tuple[Scope, ...] = ("system", "domain", "project")
NOT_DOMAIN: tuple[Scope, ...] = ("system", "project")

DEFAULT_DOMAIN_ID = "default"

T = TypeVar("T")


def moment(text: str, now_us: int) -> int:
    """A time in the future as clients write it, in microseconds since 1970; 400 for anything else."""
    try:
        us = us_of(text)
        iso_us(us)  # Refuses what cannot be shown: the last microsecond of the year 9999, or later.
    except (ValueError, OverflowError):
        raise BadRequest(f"Timestamp not in expected format: expires_at: {text[:64]!r}") from None
    if us <= now_us:
        raise BadRequest("The 'expires_at' must not be before now.")
    return us


def new_id(clock: Clock) -> str:
    """Identity's ids are uuids without dashes, as upstream's are."""
    return clock.uuid().replace("-", "")


def known(target: T | None, kind: str, identifier: str) -> T:
    """`target`, which a path names; 404 where it is None. Called after the rules were checked: so strangers cannot tell
    a thing of others from one that does not exist."""
    if target is None:
        raise NotFound(f"Could not find {kind}: {identifier}.")
    return target


def refuse_delegated(call: Call[object, object], words: str, *, but_for_credentials: bool = False) -> None:
    """403 for a token made from a delegation: what is done here would outlive the delegation or reach further.

    but_for_credentials: application credentials have rules of their own here.
    """
    by = LiveToken.of(call.caller).token.by
    lent = by.trust_id or by.credential_id or by.access_token_id
    if lent or (by.application_credential_id and not but_for_credentials):
        raise Forbidden(words)


def member(call: Call[object, object], collection: str, identifier: str) -> dict[str, str]:
    """The `links` of one resource."""
    return {"self": f"{call.service_url}/{collection}/{identifier}"}


def collection(
    call: Call[object, object],
    path: str,
    key: str,
    items: Iterable[Mapping[str, object]],
    *,
    next_marker: str | None = None,
) -> dict[str, object]:
    """A list answer: `path` is below the service's URL; `next_marker` the last id of a page that is not the last."""
    url = f"{call.service_url}/{path}"
    asked = call.query.pairs
    following = None
    if next_marker is not None:
        kept = [(name, value) for name, value in asked if name != "marker"]
        following = f"{url}?{urlencode([*kept, ('marker', next_marker)])}"
    return {
        key: list(items),
        "links": {"self": f"{url}?{urlencode(asked)}" if asked else url, "previous": None, "next": following},
    }


def is_true(text: str | None) -> bool:
    """How upstream reads a boolean query parameter: present means true unless it says 0 or false."""
    return text is not None and text.strip().lower() not in ("0", "false", "f", "n", "no", "off")
