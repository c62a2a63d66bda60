"""Hosts as records: registered when their agent reports its facts, up or down, and what they have said they are."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import untold
from cumulet.compute.joined_hosts import members, row_of
from cumulet.compute.scheduler import Reason
from cumulet.compute.store import hosts, servers
from cumulet.db.engine import Row, Tx
from cumulet.db.parts import OfMany, in_parts
from cumulet.db.schema import OtherState
from cumulet.errors import BadRequest
from cumulet.host import reach
from cumulet.host.driver import Guest, HostFacts
from cumulet.host.nics import DEVICE_TAGS, without_tags
from cumulet.host.telling import LIVE_METADATA
from cumulet.host.wiring import NO_PACKETS
from cumulet.placement import allocations as placement
from cumulet.placement import providers
from cumulet.placement.store import inventories, resource_providers
from cumulet.settings import Settings

DEFAULT_ZONE = "nova"


def require_same(tx: Tx, settings: Settings) -> None:
    """Raise OtherState unless the servers of this state would find their hosts again."""
    known = {row.name: (row.facts or {}).get("driver") for row in tx.all(sa.select(hosts.c.name, hosts.c.facts))}
    for driver in sorted({driver for driver in known.values() if driver is not None} - {settings.driver}):
        raise OtherState(
            f"the state was made with --driver {driver}, and {settings.driver} hosts would find none of its servers: "
            f"go on with --driver {driver}, or name another folder with --state"
        )
    joined = {one.name for one in members(tx)}
    for number, name in enumerate(settings.host_names):
        if name in joined:
            raise OtherState(
                f"{name} has joined from another machine, and no host of this machine may have its name: start with "
                f"--hosts {number} at most, or remove it first (`cumulet host remove {name}`)"
            )
    count = sa.func.count().label("count")
    held = sa.select(servers.c.host, count).where(servers.c.deleted_at_us.is_(None), servers.c.host.is_not(None))
    for row in tx.all(held.group_by(servers.c.host).order_by(servers.c.host)):
        if row.host not in settings.host_names and row.host not in joined:
            raise OtherState(
                f"{row.host} still has servers ({row.count}), and would not be there: start with more --hosts, or "
                "move its servers away first"
            )


def would_be_same(facts: HostFacts, settings: Settings) -> bool:
    """Whether `require_same` will accept a state with this host."""
    return facts.driver == settings.driver


_OF_NAME = hosts.c.name == sa.bindparam("of_name")
_KNOWN = OfMany(
    sa.select(hosts.c.name, hosts.c.hypervisor_uuid, hosts.c.up, sa.cast(hosts.c.facts, sa.Text).label("facts_text")),
    hosts.c.name,
)
_HYPERVISORS = sa.select(hosts.c.name, hosts.c.hypervisor_uuid).where(
    sa.or_(_OF_NAME, hosts.c.hypervisor_uuid == sa.bindparam("of_id"))
)
_HEARD = sa.update(hosts).where(_OF_NAME).values(to_clear=sa.or_(hosts.c.to_clear, sa.not_(hosts.c.up)))
_SERVERS_OF = sa.select(servers.c.id).where(
    servers.c.host == sa.bindparam("of_host"), servers.c.deleted_at_us.is_(None)
)
_CLEARED = sa.update(hosts).where(_OF_NAME, hosts.c.to_clear).values(to_clear=False)
_OTHERWISE = sa.update(hosts).where(_OF_NAME, hosts.c.up != sa.bindparam("of_up"))
_STATE = sa.select(hosts.c.up, hosts.c.forced_down).where(_OF_NAME)
_TOTALS = OfMany(
    sa.select(resource_providers.c.name, inventories.c.resource_class, inventories.c.total).join(
        inventories, inventories.c.provider_id == resource_providers.c.id
    ),
    resource_providers.c.name,
)


def register(
    tx: Tx,
    *said: HostFacts,
    clock: Clock,
    settings: Settings,
    totals: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    """Agents of hosts have answered: record what they reported in their rows and in their inventories.

    Many cost little more than one. A host that was removed from the cloud while it was asked is not added again.
    `totals`: by host, what its inventory was a moment ago; if it is as reported, it is not read. A row has a new
    `updated_at_us` only for news, because all hosts are read again then (`version`).
    """
    now = clock.now_us()
    by_name = {facts.name: facts for facts in said}
    known = {row.name: row for row in _KNOWN.rows(tx, sorted(by_name))}
    again: list[dict[str, object]] = []
    as_before: list[str] = []
    for name, facts in sorted(by_name.items()):
        if name not in known and name not in settings.host_names and row_of(tx, name) is None:
            continue
        tx.touch(name)
        text = msgspec.json.encode(facts, order="sorted").decode()
        values = {"facts": msgspec.json.decode(text), "seen_at_us": now, "updated_at_us": now, "up": True}
        if (row := known.get(name)) is not None:
            if row.up and row.facts_text == text:
                as_before.append(name)
            else:
                again.append({"of_name": name, **values})
                if LIVE_METADATA in facts.features and LIVE_METADATA not in kind_from(row.facts_text).features:
                    # Until now its agent was of an earlier version, or it had no networks.
                    untold.note_all(tx, [one.id for one in tx.all(_SERVERS_OF, {"of_host": name})], now_us=now)
            hypervisor_uuid = row.hypervisor_uuid
            if totals is not None and totals_of(facts).items() <= totals.get(name, {}).items():
                continue
        else:
            hypervisor_uuid = _provider_uuid(tx, name) or clock.uuid()
            tx.execute(
                sa.insert(hosts).values(
                    name=name, service_uuid=clock.uuid(), hypervisor_uuid=hypervisor_uuid, zone=DEFAULT_ZONE,
                    disabled=False, forced_down=False, created_at_us=now, **values,
                )
            )  # fmt: skip
        _offer(tx, facts, hypervisor_uuid, settings, now_us=now)
    if len(again) == 1:
        tx.run(_HEARD, again[0])
    elif again:
        tx.execute(_HEARD, again)
    heard_again(tx, as_before, now_us=now)


def _provider_uuid(tx: Tx, name: str) -> str | None:
    """Of the provider that an administrator has made for a host to come."""
    found = providers.load(tx, resource_providers.c.name == name)
    return found[0].uuid if found and not hypervisors(tx, name, found[0].uuid) else None


def hypervisors(tx: Tx, name: str, hypervisor_id: str) -> dict[str, str]:
    """See `web.context.Cloud.hypervisors`."""
    found = tx.all(_HYPERVISORS, {"of_name": name, "of_id": hypervisor_id})
    return {row.name: row.hypervisor_uuid for row in found}


def _offer(tx: Tx, facts: HostFacts, hypervisor_uuid: str, settings: Settings, *, now_us: int) -> None:
    ratios = {
        placement.VCPU: settings.cpu_allocation_ratio,
        placement.MEMORY_MB: settings.ram_allocation_ratio,
        placement.DISK_GB: settings.disk_allocation_ratio,
    }
    placement.set_inventory(
        tx,
        name=facts.name,
        uuid=hypervisor_uuid,
        inventory={name: (total, ratios[name]) for name, total in totals_of(facts).items()},
        now_us=now_us,
    )


def totals_of(facts: HostFacts) -> dict[str, int]:
    """What a host says that it has, by resource class."""
    return {
        placement.VCPU: facts.vcpus,
        placement.MEMORY_MB: facts.memory_mib,
        placement.DISK_GB: facts.disk_gib,
    }


def recorded_totals(tx: Tx, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """The totals in placement of each of these hosts, by resource class. Others write there, too."""
    found: dict[str, dict[str, int]] = {name: {} for name in names}
    for row in _TOTALS.rows(tx, names):
        found[row.name][row.resource_class] = row.total
    return found


def is_known(tx: Tx, name: str) -> bool:
    """Whether a host of this name has ever registered."""
    return bool(_KNOWN.rows(tx, [name]))


def require_known(tx: Tx, name: str | None) -> None:
    """BadRequest for the name of a host that does not exist."""
    if name is not None and not is_known(tx, name):
        raise BadRequest(f"Compute host {name} could not be found.", reason=Reason.HOST_UNKNOWN)


def set_up(tx: Tx, name: str, *, up: bool, now_us: int, seen_at_us: int | None = None) -> bool:
    """Record that a host answers, or is silent for too long (since `seen_at_us`, if known). True if that is news."""
    seen = now_us if up else seen_at_us
    changes = {"up": up, "updated_at_us": now_us} | ({"seen_at_us": seen} if seen is not None else {})
    if tx.changed(_OTHERWISE, {"of_name": name, "of_up": up, **changes}) != 1:
        return False
    tx.touch(name)
    return True


def cleared(tx: Tx, name: str) -> None:
    """Record that a host has removed the guests that it lost while it was down: it may get others."""
    if tx.changed(_CLEARED, {"of_name": name}) == 1:
        tx.touch(name)


def is_up(tx: Tx, name: str) -> bool:
    """Whether a host is known, answers, and was not declared down by an administrator."""
    row = tx.first(_STATE, {"of_name": name})
    return row is not None and row.up and not row.forced_down


def is_fenced(tx: Tx, name: str, settings: Settings) -> bool:
    """Whether its guests certainly cannot run. Silence alone does not prove that.

    Either an administrator says so, or the lease that it held has run out (`agent.lease`) and its watchdog has stopped
    its guests.
    """
    row = tx.first(_STATE, {"of_name": name})
    if row is None or row.forced_down:
        return row is not None
    return settings.fence_silent_hosts and not row.up and kind_of(tx, name).lease_held


_FACTS = sa.select(sa.cast(hosts.c.facts, sa.Text)).where(hosts.c.name == sa.bindparam("of_name"))


def offers(tx: Tx, name: str, feature: str) -> bool:
    """Whether a host has reported this of `HostFacts.features`."""
    return feature in kind_from(tx.scalar(_FACTS, {"of_name": name})).features


def as_told(tx: Tx, host: str, guest: Guest) -> Guest:
    """The description of a guest as this host understands it."""
    return guest if offers(tx, host, DEVICE_TAGS) else without_tags(guest)


def kinds(tx: Tx) -> list[tuple[str, Kind]]:
    """All hosts, by name, with what they have reported."""
    return sorted(((row.name, kind_from(row.facts_text)) for row in tx.all(ALL, {})), key=lambda one: one[0])


def kinds_of(tx: Tx, names: Collection[str]) -> dict[str, Kind]:
    """What each of these hosts has said it is. Many cost hardly more than one."""
    return {row.name: kind_from(row.facts_text) for row in NAMED.rows(tx, sorted(names))}


def address_of(tx: Tx, name: str) -> str:
    """The address by which other hosts reach it; empty if it has never told one."""
    return kind_of(tx, name).address


def addresses(tx: Tx, names: Collection[str]) -> dict[str, str]:
    """By name: the address by which other hosts reach it, of those that have told one.

    A record may be of a time in which hosts were believed whatever they said.
    """
    return {name: kind.address for name, kind in kinds_of(tx, names).items() if reach.is_address(kind.address)}


def offering(tx: Tx, feature: str) -> list[str]:
    """The hosts that answer and have reported this of `HostFacts.features`."""
    return sorted(row.name for row in tx.all(ALL, {}) if row.up and feature in kind_from(row.facts_text).features)


class AllHosts(msgspec.Struct, frozen=True):
    """What is asked of all hosts at once."""

    for_routers: tuple[str, ...]
    """The hosts that can have routers: those that wire guests, are in service and may (`Kind.may_have_routers`).

    If some of these lead to `public`, only those. A silent host stays among them until an administrator declares it
    down or disables it.
    """
    with_packets: tuple[str, ...]
    """Names of the hosts that answer, wire guests and have packets (simulated hosts have none)."""
    offered: frozenset[str]
    """What any host has reported in `HostFacts.features`, be it up or down."""


def all_hosts(tx: Tx) -> AllHosts:
    rows = [(row, kind_from(row.facts_text)) for row in tx.all(ALL, {})]
    return AllHosts(
        for_routers=tuple(among({row.name: kind.features for row, kind in rows if may_have_routers(row)})),
        with_packets=tuple(sorted(row.name for row, kind in rows if row.up and has_packets(kind.features))),
        offered=frozenset().union(*(kind.features for _, kind in rows)),
    )


def version(tx: Tx) -> tuple[object, ...]:
    """Equal in two transactions on PostgreSQL if `all_hosts` is: reading it costs a thirtieth of reading them."""
    return tuple(tx.all(_VERSION, {})[0])


def has_packets(features: Collection[str]) -> bool:
    return "networks" in features and NO_PACKETS not in features


def may_have_routers(row: Row) -> bool:
    return not (row.forced_down or row.disabled) and kind_from(row.facts_text).may_have_routers(up=row.up)


def among(features: Mapping[str, frozenset[str]]) -> list[str]:
    """Among hosts in service (name -> features), the names of those that can have routers."""
    able = sorted(name for name, offered in features.items() if "networks" in offered)
    return [name for name in able if "public" in features[name]] or able


def is_heard(tx: Tx, name: str) -> bool:
    """Whether the record says that a host answers. An administrator may have declared it down all the same."""
    row = tx.first(_STATE, {"of_name": name})
    return row is not None and bool(row.up)


_UP = OfMany(sa.select(hosts.c.name, hosts.c.to_clear).where(hosts.c.up), hosts.c.name)
_SEEN = sa.update(hosts).where(hosts.c.up).values(seen_at_us=sa.bindparam("now_us"))
_ONE_HEARD_AGAIN = _SEEN.where(_OF_NAME)
_HEARD_AGAIN = _SEEN.where(hosts.c.name.in_(sa.bindparam("of_names", expanding=True)))


def heard_of(tx: Tx, names: Sequence[str]) -> dict[str, bool]:
    """Those of these hosts that answer, as the record says, and whether they have guests left that they lost."""
    return {row.name: row.to_clear for row in _UP.rows(tx, names)}


def heard_again(tx: Tx, names: Sequence[str], *, now_us: int) -> None:
    """Record that these hosts have answered with nothing new. A host that the record calls down stays down."""
    if len(names) == 1:
        tx.run(_ONE_HEARD_AGAIN, {"of_name": names[0], "now_us": now_us})
        return
    for part in in_parts(names):
        tx.execute(_HEARD_AGAIN, {"of_names": list(part), "now_us": now_us})


ALL = sa.select(
    hosts.c.name, hosts.c.zone, hosts.c.up, hosts.c.to_clear, hosts.c.forced_down, hosts.c.disabled,
    sa.cast(hosts.c.facts, sa.Text).label("facts_text"),
)  # fmt: skip
"""All hosts: whether they are in service, and what they have said they are."""


_STANDS = sa.func.concat(hosts.c.name, hosts.c.up, hosts.c.forced_down, hosts.c.disabled)
_VERSION = sa.select(
    sa.func.count(), sa.func.sum(sa.func.hashtextextended(_STANDS, hosts.c.updated_at_us))
).select_from(hosts)


NAMED = OfMany(ALL, hosts.c.name)
"""The same, of hosts with these names."""


class Kind(msgspec.Struct, frozen=True):
    """The part of a host's facts that the scheduler reads."""

    driver: str = ""
    hypervisor_type: str = ""
    address: str = ""
    cpu_models: frozenset[str] = frozenset()
    machine_types: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    lease_seconds: float | None = None
    lease_held: bool = False
    version: str = ""
    protocol: int = 1

    def may_have_routers(self, *, up: bool) -> bool:
        """Whether routers may be on it. A host with a watchdog: while it answers and holds a lease, because its routers
        end with the lease. A host without one: also while it is silent, because it may be alive and have them still.
        Two hosts never have the same router.
        """
        return self.lease_seconds is None or (up and self.lease_held)


@functools.lru_cache(maxsize=16_384)
def kind_from(facts: str | None) -> Kind:
    """Cached: facts seldom change, and every choice of a host reads those of all hosts."""
    return Kind() if facts is None else msgspec.json.decode(facts, type=Kind)


def kind_of(tx: Tx, name: str) -> Kind:
    """What the host has reported; an empty `Kind` if it has reported nothing."""
    return kind_from(tx.scalar(_FACTS, {"of_name": name}))
