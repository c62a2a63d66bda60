"""/OS-OAUTH1/consumers: programs that may ask users for access by OAuth 1.0a."""

from __future__ import annotations

from typing import Annotated

from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select, update

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Forbidden
from cumulet.identity import store
from cumulet.identity.api import (
    ADMIN,
    ADMIN_OR_SYSTEM_READER,
    IDENTITY,
    NOT_DOMAIN,
    collection,
    known,
    member,
    new_id,
)
from cumulet.identity.immutable import given_extra
from cumulet.identity.oauth1_store import Consumer, access_tokens, consumer_by_id, consumers
from cumulet.identity.service import Identity
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

GET = rule("identity:get_consumer", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
LIST = rule("identity:list_consumers", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
CREATE = rule("identity:create_consumer", ADMIN, scope=NOT_DOMAIN)
UPDATE = rule("identity:update_consumer", ADMIN, scope=NOT_DOMAIN)
DELETE = rule("identity:delete_consumer", ADMIN, scope=NOT_DOMAIN)

MOST_CONSUMERS = 1000
CONSUMERS = "/OS-OAUTH1/consumers"
CONSUMER = "/OS-OAUTH1/consumers/{consumer_id}"

Description = Annotated[str | Unset | None, Json({"maxLength": 1024})]


class NewConsumer(Body, extra="allow"):
    description: Description = UNSET


class ConsumerChanges(Body, extra="allow", min_properties=1):
    description: Description = UNSET


def secret_of(call: Call[object, object]) -> str:
    """A new secret: 128 bits in hexadecimal, as upstream's."""
    return call.cloud.clock.token_bytes(16).hex()


def _view(call: Call[object, object], consumer: Consumer) -> dict[str, object]:
    links = member(call, CONSUMERS[1:], consumer.id)
    return {**consumer.extra, "id": consumer.id, "description": consumer.description, "links": links}


def _consumer(call: Call[object, object]) -> Consumer:
    return known_consumer(call.tx, call.path["consumer_id"])


def known_consumer(tx: Tx, identifier: str) -> Consumer:
    return known(consumer_by_id(tx, identifier), "consumer", identifier[:64])


def _extra(body: Body) -> dict[str, object]:
    if "secret" in body.extra:
        raise BadRequest("Invalid input for field consumer: the secret is made here, and shown once.")
    return given_extra(body)


@IDENTITY.operation("GET", CONSUMERS, rules=(Rule(LIST),))
def list_consumers(call: Call[None, None]) -> dict[str, object]:
    """List consumers."""
    statement = select(consumers).order_by(consumers.c.id).limit(call.cloud.settings.largest_page)
    views = [_view(call, consumer) for consumer in store.many(call.tx, Consumer, statement)]
    return collection(call, CONSUMERS[1:], "consumers", views)


@IDENTITY.operation("GET", CONSUMER, rules=(Rule(GET),))
def show_consumer(call: Call[None, None]) -> dict[str, object]:
    """Show a consumer, without its secret."""
    return {"consumer": _view(call, _consumer(call))}


@IDENTITY.operation("POST", CONSUMERS, rules=(Rule(CREATE),), body=NewConsumer, body_key="consumer", success=201)
def create_consumer(call: Call[None, NewConsumer]) -> dict[str, object]:
    """Create a consumer; its secret is shown this once."""
    extra = _extra(call.body)
    count: int = call.tx.scalar(select(func.count()).select_from(consumers))
    if count >= MOST_CONSUMERS:
        raise Forbidden(f"There are {MOST_CONSUMERS} consumers already, which is as many as there may be.")
    identity, secret = Identity.of(call), secret_of(call)
    consumer = Consumer(
        id=new_id(call.cloud.clock),
        description=call.body.description if isinstance(call.body.description, str) else None,
        sealed=identity.credential_keys.seal(secret.encode()),
        extra=extra,
    )
    call.tx.execute(insert(consumers).values(**asdict(consumer)))
    return {"consumer": {**_view(call, consumer), "secret": secret}}


@IDENTITY.operation("PATCH", CONSUMER, rules=(Rule(UPDATE),), body=ConsumerChanges, body_key="consumer")
def update_consumer(call: Call[None, ConsumerChanges]) -> dict[str, object]:
    """Change a consumer's description."""
    consumer, extra = _consumer(call), _extra(call.body)
    values: dict[str, object] = {"extra": {**consumer.extra, **extra}}
    if call.body.description is not UNSET:
        values["description"] = call.body.description
    call.tx.execute(update(consumers).where(consumers.c.id == consumer.id).values(**values))
    return {"consumer": _view(call, _consumer(call))}


@IDENTITY.operation("DELETE", CONSUMER, rules=(Rule(DELETE),), success=204)
def delete_consumer(call: Call[None, None]) -> None:
    """Delete a consumer with its request tokens and access tokens. Tokens made from these end at once."""
    consumer, a = _consumer(call), access_tokens.c
    given = [row.id for row in call.tx.all(select(a.id).where(a.consumer_id == consumer.id))]
    call.tx.execute(delete(consumers).where(consumers.c.id == consumer.id))
    for access_token_id in given:
        Identity.of(call).end_delegation(call.tx, access_token_id, "access_token")
