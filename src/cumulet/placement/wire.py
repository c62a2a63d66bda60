"""What Placement's answers and queries have in common: cache headers and the syntax of parameters."""

from __future__ import annotations

import uuid as uuids
from typing import Annotated

import msgspec

from cumulet.errors import BadRequest
from cumulet.placement.dialect import freshness
from cumulet.web.operation import Call, Microversion, Reply
from cumulet.web.schema import Json

MAX_INT = 0x7FFFFFFF
BAD_VALUE = "placement.query.bad_value"

Uuid = Annotated[str, Json({"format": "uuid"})]
UUID_KEY_PATTERN = "^[0-9a-fA-F-]{36}$"


def fresh(
    call: Call[object, object],
    body: object,
    *,
    modified_us: int | None = None,
    status: int | None = None,
    location: str = "",
) -> Reply:
    """An answer with the headers of microversion 1.15: when it was last modified, and not to be cached."""
    headers = freshness(call.version, modified_us or call.now_us)
    if location:
        headers["Location"] = f"{call.service_url}{location}"
    return Reply(body=body, status=status, headers=headers)


def canonical_uuid(text: str, what: str) -> str:
    """With hyphens and in lower case; 400 for what is no UUID."""
    try:
        return str(uuids.UUID(text))
    except ValueError:
        raise BadRequest(f"Malformed {what}: {text[:64]}") from None


def amounts(text: str) -> dict[str, int]:
    """``VCPU:2,MEMORY_MB:1024``."""
    if not text.strip():
        raise BadRequest("Badly formed resources parameter. Expected the form resources=VCPU:2,MEMORY_MB:1024.")
    found: dict[str, int] = {}
    for part in text.split(","):
        name, colon, amount = part.partition(":")
        if not colon or ":" in amount:
            raise BadRequest("Badly formed resources parameter. Expected the form resources=VCPU:2,MEMORY_MB:1024.")
        if not (amount.isascii() and amount.strip().isdigit() and 0 < int(amount[:20]) <= MAX_INT):
            raise BadRequest(f"Requested resource {name} expected a positive integer amount. Got: {amount[:64]}.")
        found[name] = int(amount)
    return found


class TraitDemand(msgspec.Struct, frozen=True, kw_only=True):
    """Required traits (of each set at least one) and forbidden ones."""

    required: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()

    def names(self) -> set[str]:
        return {name for group in self.required for name in group} | set(self.forbidden)

    def met_by(self, traits: frozenset[str]) -> bool:
        return not (self.forbidden & traits) and all(group & traits for group in self.required)


def trait_demand(texts: list[str], *, forbidding: bool, alternatives: bool) -> TraitDemand:
    """``A,!B`` and, where the microversion has it, ``in:A,B``."""
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    for text in texts:
        is_in = text.startswith("in:")
        names = [name.strip() for name in text.removeprefix("in:").split(",")]
        negated = [name for name in names if name.startswith("!")]
        if not all(name.lstrip("!") for name in names):
            raise BadRequest("Invalid query string parameters: an empty trait in 'required'.")
        if is_in and (not alternatives or negated):
            raise BadRequest("Invalid query string parameters: 'in:' is not supported here in 'required'.")
        if negated and not forbidding:
            raise BadRequest("Invalid query string parameters: forbidden traits are not supported in this version.")
        if is_in:
            required.append(frozenset(names))
        else:
            forbidden |= {name.lstrip("!") for name in negated}
            required += [frozenset({name}) for name in names if name not in negated]
    if any(group <= forbidden for group in required):
        raise BadRequest("Conflicting traits: required and forbidden at once.", reason=BAD_VALUE)
    return TraitDemand(required=tuple(required), forbidden=frozenset(forbidden))


class AggregateDemand(msgspec.Struct, frozen=True, kw_only=True):
    """Required aggregates (of each set at least one) and forbidden ones."""

    member_of: tuple[frozenset[str], ...] = ()
    forbidden: frozenset[str] = frozenset()

    def has(self, aggregates: tuple[str, ...]) -> bool:
        """Whether these aggregates have all that is required."""
        return all(not group.isdisjoint(aggregates) for group in self.member_of)

    def allows(self, aggregates: tuple[str, ...]) -> bool:
        """Whether none of them is forbidden."""
        return self.forbidden.isdisjoint(aggregates)

    def met_by(self, aggregates: tuple[str, ...]) -> bool:
        return self.allows(aggregates) and self.has(aggregates)


def aggregate_demand(texts: list[str], version: Microversion) -> AggregateDemand:
    """``UUID``, ``in:UUID,UUID`` and, where the microversion has it, either after ``!``, and several of them."""
    if len(texts) > 1 and not version.at_least("1.24"):
        raise BadRequest("Multiple member_of parameters are not supported in this version.")
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    for text in texts:
        negated = text.startswith("!")
        if negated and not version.at_least("1.32"):
            raise BadRequest("Forbidden member_of parameters are not supported in this version.")
        bare = text.removeprefix("!")
        several = bare.startswith("in:")
        names = [canonical_uuid(name, "member_of") for name in bare.removeprefix("in:").split(",")]
        if not several and len(names) > 1:
            raise BadRequest("Several aggregates in member_of need the prefix 'in:'.")
        if negated:
            forbidden |= set(names)
        else:
            required.append(frozenset(names))
    return AggregateDemand(member_of=tuple(required), forbidden=frozenset(forbidden))
