"""/OS-REVOKE/events: what ended tokens before they expired. Listed until the last of these tokens has expired."""

from __future__ import annotations

from operator import itemgetter

from sqlalchemy import BigInteger, case, literal, select

from cumulet.clock import iso_us, us_of
from cumulet.errors import BadRequest
from cumulet.identity import store
from cumulet.identity.api import IDENTITY, NOT_DOMAIN
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Query, Unset

LIST = rule("identity:list_revoke_events", "rule:service_or_admin", scope=NOT_DOMAIN)

_NAMES = {"token": "audit_id", "trust": "OS-TRUST:trust_id", "access_token": "OS-OAUTH1:access_token_id"}
"""What an event calls what was revoked. Upstream's events know nothing of other delegations, such as application
credentials, whose tokens end without one there, too."""
_TABLES = (("user_id", store.users), ("project_id", store.projects), ("domain_id", store.domains))


class ListEvents(Query):
    since: str | Unset = UNSET


def _since_us(text: str | Unset) -> int:
    if text is UNSET or not text:
        return 0
    try:
        return us_of(text)
    except ValueError:
        raise BadRequest(f"invalid date format {text[:64]}") from None


def _events(call: Call[object, object], since_us: int) -> list[dict[str, object]]:
    """The oldest events, as many as one answer has. With the time of the last one as `since`, the next ones follow."""
    r, now_us, most = store.revoked_tokens.c, call.now_us, call.cloud.settings.largest_page
    found: list[tuple[int, str, str]] = []
    # A process of the version before notes no time (0). Now is not too early: the token was issued before.
    at = case((r.revoked_at_us == 0, literal(now_us, BigInteger)), else_=r.revoked_at_us)
    revoked = select(r.audit_id, r.kind, at.label("at")).where(r.expires_at_us > now_us, at >= since_us)
    for row in call.tx.all(revoked.where(r.kind.in_(_NAMES)).order_by(at).limit(most)):
        found.append((row.at, _NAMES[row.kind], row.audit_id))
    # Tokens that were issued earlier have expired by themselves.
    alive_us = now_us - call.cloud.settings.token_life_seconds * 1_000_000
    for name, table in _TABLES:
        ends = table.c.tokens_not_before_us
        ended = select(table.c.id, ends.label("at")).where(ends > max(alive_us, since_us - 1))
        found += [(row.at, name, row.id) for row in call.tx.all(ended.order_by(ends).limit(most))]
    events: list[dict[str, object]] = []
    for at_us, name, identifier in sorted(found, key=itemgetter(0))[:most]:
        moment = f"{iso_us(at_us)}Z"
        events.append({name: identifier, "issued_before": moment, "revoked_at": moment})
    return events


@IDENTITY.operation("GET", "/OS-REVOKE/events", rules=(Rule(LIST),), query=ListEvents)
def list_revocation_events(call: Call[None, None]) -> dict[str, object]:
    """List what ended tokens before they expired."""
    events = _events(call, _since_us(call.asked(ListEvents).since))
    links = {"next": None, "self": f"{call.service_url}/OS-REVOKE/events", "previous": None}
    return {"events": events, "links": links}
