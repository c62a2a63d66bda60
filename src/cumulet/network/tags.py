"""Tags of networks, subnets, ports, routers, floating IPs, security groups, QoS policies, trunks:
``/{collection}/{id}/tags``.

The target is loaded like the resource itself, so a resource out of sight is 404 here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from cumulet.errors import BadRequest, NotFound
from cumulet.network import bodies, resource, topology
from cumulet.network.floating_ips import FLOATING_IPS
from cumulet.network.networks import NETWORKS
from cumulet.network.ports import PORTS
from cumulet.network.qos_policies import QOS_POLICIES
from cumulet.network.resource import Kind, View
from cumulet.network.resource_columns import Resource
from cumulet.network.routers import ROUTERS
from cumulet.network.security_groups import GROUPS
from cumulet.network.service import NETWORK
from cumulet.network.store import network_tags, revise, tags_of
from cumulet.network.subnet_pools import SUBNET_POOLS
from cumulet.network.subnets import SUBNETS
from cumulet.network.trunks import TRUNKS
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.schema import Anything, Body

CallT = TypeVar("CallT")
AnswerT = TypeVar("AnswerT")

KINDS: tuple[Kind[Resource], ...] = (
    NETWORKS,
    SUBNETS,
    SUBNET_POOLS,
    PORTS,
    ROUTERS,
    FLOATING_IPS,
    GROUPS,
    QOS_POLICIES,
    TRUNKS,
)


class SetTags(Body):
    tags: bodies.Tags


def _tags(call: Call[Resource, object]) -> list[str]:
    return tags_of(call.tx, [call.target.id]).get(call.target.id, [])


def _set(call: Call[Resource, object], kind: Kind[Resource], tags: list[str]) -> None:
    if len(set(tags)) > bodies.MAX_TAGS:
        raise BadRequest(f"The number of tags exceed the maximum {bodies.MAX_TAGS}.")
    for tag in tags:
        if len(tag) > bodies.MAX_TAG_LENGTH or "," in tag or not is_one_line(tag):
            raise BadRequest(f"'{tag[:80]}' is not a valid tag.")
    if set(tags) == set(_tags(call)):
        return
    topology.set_tags(call.tx, call.target.id, tags)
    revise(call.tx, kind.record, call.target.id, call.now_us)


def _missing(tag: str) -> NotFound:
    return NotFound(f"Tag {tag} could not be found.", reason="TagNotFound")


def _declare(kind: Kind[Resource]) -> None:
    """Declare the operations on the tags of one kind of resource."""
    singular = kind.singular
    path = f"/{kind.plural.replace('_', '-')}/{{{singular}_id}}/tags"
    target, facts = resource.target(kind), resource.target_facts(kind)

    def named(handler: Callable[[CallT], AnswerT]) -> Callable[[CallT], AnswerT]:
        handler.__name__ = handler.__name__.replace("resource", singular)
        return handler

    see, add = (Rule(f"get_{singular}:tags"),), (Rule(f"create_{singular}:tags"),)
    set_, remove = (Rule(f"update_{singular}:tags"),), (Rule(f"delete_{singular}:tags"),)

    @NETWORK.operation("GET", path, rules=see, target=target, facts=facts)
    @named
    def list_resource_tags(call: Call[Resource, None]) -> View:
        """List a resource's tags."""
        return {"tags": _tags(call)}

    @NETWORK.operation("PUT", path, rules=set_, target=target, facts=facts, body=SetTags)
    @named
    def replace_resource_tags(call: Call[Resource, SetTags]) -> View:
        """Give a resource exactly these tags."""
        _set(call, kind, call.body.tags)
        return {"tags": _tags(call)}

    @NETWORK.operation("POST", path, rules=add, target=target, facts=facts, body=SetTags)
    @named
    def add_resource_tags(call: Call[Resource, SetTags]) -> View:
        """Give a resource these tags in addition."""
        _set(call, kind, [*_tags(call), *call.body.tags])
        return {"tags": _tags(call)}

    @NETWORK.operation("DELETE", path, rules=remove, target=target, facts=facts, success=204)
    @named
    def remove_resource_tags(call: Call[Resource, None]) -> None:
        """Remove all tags of a resource."""
        _set(call, kind, [])

    @NETWORK.operation("GET", path + "/{tag}", rules=see, target=target, facts=facts, success=204)
    @named
    def check_resource_tag(call: Call[Resource, None]) -> None:
        """Whether a resource has a tag."""
        if call.path["tag"] not in _tags(call):
            raise _missing(call.path["tag"])

    @NETWORK.operation("PUT", path + "/{tag}", rules=set_, target=target, facts=facts, body=Anything, success=201)
    @named
    def set_resource_tag(call: Call[Resource, Anything]) -> Reply:
        """Give a resource a tag."""
        _set(call, kind, [*_tags(call), call.path["tag"]])
        return Reply()

    @NETWORK.operation("DELETE", path + "/{tag}", rules=remove, target=target, facts=facts, success=204)
    @named
    def remove_resource_tag(call: Call[Resource, None]) -> None:
        """Remove a tag of a resource."""
        this = sa.and_(network_tags.c.resource_id == call.target.id, network_tags.c.tag == call.path["tag"])
        if not call.tx.changed(sa.delete(network_tags).where(this)):
            raise _missing(call.path["tag"])
        revise(call.tx, kind.record, call.target.id, call.now_us)


for _kind in KINDS:
    _declare(_kind)
