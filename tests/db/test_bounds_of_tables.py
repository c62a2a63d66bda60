"""Each table has a bound: whoever adds one says here what keeps it from growing without end.

A bound is a number that is compared in the transaction that adds a row, or what deletes rows by their age or number.
Rows that belong to another row count by that one's bound, and end with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.compute import history, quotas
from cumulet.db.engine import metadata
from cumulet.identity import expired
from cumulet.network import limits
from cumulet.processes.parts import load_services
from cumulet.settings import Settings

load_services()


def named(name: str) -> object:
    """``module:NAME`` of the program."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(f"cumulet.{module}"), attribute)


class Bound(msgspec.Struct, frozen=True):
    """What bounds a table's rows."""

    def problem(self, table: sa.Table) -> str | None:
        """What is not so that is said here; None: it is as said."""
        return None


class Few(Bound, frozen=True):
    """As many as administrators, or managers of a domain, like; or so many by nature."""

    why: str


class AtMost(Bound, frozen=True):
    """A constant of the program, of all or of one project, or how old rows become; or the function that sees to it."""

    name: str

    def problem(self, table: sa.Table) -> str | None:
        most = named(self.name)
        bounds = callable(most) or (isinstance(most, int | float) and most > 0)
        return None if bounds else f"{self.name} is {most!r}"


class BySetting(Bound, frozen=True):
    """A setting."""

    name: str

    def problem(self, table: sa.Table) -> str | None:
        return None if self.name in Settings.__struct_fields__ else f"there is no setting {self.name}"


class ByQuota(Bound, frozen=True):
    """A quota of Compute, by its name; or one of Network, which counts the table itself."""

    name: str = ""

    def problem(self, table: sa.Table) -> str | None:
        if self.name:
            return None if quotas.DEFAULTS.get(self.name, -1) > 0 else f"no quota {self.name}, or none by default"
        counted = [name for name, one in limits._COUNTED.items() if one is table]
        # No default limit: each of these needs another row that has one.
        bounded = [name for name in counted if (limits.DEFAULT_LIMITS | limits.FIXED_LIMITS)[name] > 0]
        return None if bounded else f"no quota counts {table.name}"


class AsHistory(Bound, frozen=True):
    """What has ended is forgotten by age and by number."""

    def problem(self, table: sa.Table) -> str | None:
        return None if any(kind.table is table for kind in history.kinds()) else "it is no kind of history"


class UntilExpired(Bound, frozen=True):
    """Each row says until when it counts, and goes within an hour after that."""

    def problem(self, table: sa.Table) -> str | None:
        return None if any(one is table for one, _ in expired.TABLES) else "nothing deletes what has expired"


class Of(Bound, frozen=True):
    """Rows of a row of `parent`, so many (`most`: as for `AtMost`), or each of another kind: then a key says so.

    `ends`: the function that deletes them with it; empty: a foreign key sees to that.
    """

    parent: str
    most: str = ""
    ends: str = ""

    def problem(self, table: sa.Table) -> str | None:
        keys = [key.parent for key in table.foreign_keys if key.column.table.name == self.parent]
        if self.ends:
            if not callable(named(self.ends)):
                return f"{self.ends} is no function"
        elif not keys:
            return f"no foreign key to {self.parent}: what deletes these rows with it?"
        if self.most:
            return AtMost(self.most).problem(table)
        unique = [set(one.columns) for one in table.constraints if isinstance(one, sa.UniqueConstraint)]
        if self.ends or any(key in one for key in keys for one in [set(table.primary_key), *unique]):
            return None
        return f"no key has its row of {self.parent}, so there may be any number"


ADMINISTRATORS = Few("made by administrators")
MANAGERS = Few("made by administrators and the managers of a domain")
APPLICATION, OAUTH1 = "identity.application_credentials", "identity.oauth1_tokens"

BOUNDS: dict[str, tuple[Bound, ...]] = {
    "address_groups": (ByQuota(),),
    "address_scopes": (ByQuota(),),
    "aggregate_hosts": (Of("aggregates"),),
    "aggregates": (ADMINISTRATORS,),
    "allocations": (Of("consumers"),),
    "console_tokens": (Of("servers", "compute.consoles:TOKENS_OF_A_SERVER", ends="compute.consoles:forget"),),
    "consumers": (Of("servers", ends="placement.allocations:release"), ADMINISTRATORS),
    "default_security_group_rules": (AtMost("network.default_rules:MOST"),),
    "findings": (AtMost("conductor.findings:KEPT"),),
    "flavor_access": (ADMINISTRATORS,),
    "flavors": (ADMINISTRATORS,),
    "floating_ips": (ByQuota(),),
    "hosts": (ADMINISTRATORS, AtMost("cli.configuration:MOST_HOSTS")),
    "identity_access_rules": (Of("identity_users", f"{APPLICATION}:MOST_RULES_OF_USER"),),
    "identity_application_credentials": (Of("identity_users", f"{APPLICATION}:MOST_OF_USER"),),
    "identity_assignments": (MANAGERS,),
    "identity_credentials": (Of("identity_users", "identity.credentials:MOST_OF_USER"),),
    "identity_domain_options": (Of("identity_domains"),),
    "identity_domains": (ADMINISTRATORS,),
    "identity_endpoint_group_projects": (Of("identity_endpoint_groups"),),
    "identity_endpoint_groups": (ADMINISTRATORS,),
    "identity_endpoint_projects": (Of("identity_endpoints"),),
    "identity_endpoints": (ADMINISTRATORS,),
    "identity_generation": (Few("one row"),),
    "identity_groups": (MANAGERS,),
    "identity_implied_roles": (Of("identity_roles"),),
    "identity_limits": (ADMINISTRATORS,),
    "identity_memberships": (Of("identity_users", "identity.groups:MOST_GROUPS_OF_USER"),),
    "identity_oauth1_access_tokens": (Of("identity_users", f"{OAUTH1}:MOST_ACCESS_TOKENS"), UntilExpired()),
    "identity_oauth1_consumers": (AtMost("identity.oauth1_consumers:MOST_CONSUMERS"),),
    "identity_oauth1_nonces": (Of("identity_oauth1_consumers", "identity.oauth1_requests:MOST_NONCES"), UntilExpired()),
    "identity_oauth1_request_tokens": (
        Of("identity_oauth1_consumers", f"{OAUTH1}:MOST_REQUEST_TOKENS"),
        UntilExpired(),
    ),
    "identity_password_states": (Of("identity_users"),),
    "identity_policies": (ADMINISTRATORS,),
    "identity_policy_associations": (ADMINISTRATORS,),
    "identity_project_tags": (Of("identity_projects", "identity.project_tags:MOST_TAGS"),),
    "identity_projects": (MANAGERS,),
    "identity_regions": (ADMINISTRATORS,),
    "identity_registered_limits": (ADMINISTRATORS,),
    "identity_revoked_tokens": (UntilExpired(),),
    "identity_roles": (MANAGERS,),
    "identity_services": (ADMINISTRATORS,),
    "identity_trusts": (Of("identity_users", "identity.trusts:MOST_OF_TRUSTOR"),),
    "identity_users": (MANAGERS,),
    "image_members": (Of("images", "image.attributes:MOST_MEMBERS"),),
    "image_properties": (Of("images", "image.attributes:MOST_PROPERTIES"),),
    "image_tags": (Of("images", "image.attributes:MOST_TAGS"),),
    "image_tasks": (
        AtMost("image.tasks:MOST_ENDED"),
        AtMost("image.tasks:KEPT_US"),
        AtMost("image.imports:MOST_AT_ONCE"),
    ),
    "images": (BySetting("images_per_project"), AsHistory()),
    "instance_action_events": (Of("instance_actions", "compute.operations:next_events"),),
    "instance_actions": (AsHistory(), BySetting("history_rows_per_server")),
    "inventories": (Of("resource_providers"),),
    "joined_hosts": (AtMost("compute.joined_hosts:MOST_JOINED"),),
    "key_pairs": (ByQuota("key_pairs"), AsHistory()),
    "leases": (Few("one row for each name that the program has"),),
    "metadef_contents": (Of("metadef_namespaces", "image.metadef_store:MOST_OF_A_KIND"),),
    "metadef_namespaces": (AtMost("image.metadef_store:MOST_NAMESPACES"),),
    "metadef_resource_types": (AtMost("image.metadef_store:MOST_TYPES"),),
    "metering_label_rules": (Of("metering_labels", "network.metering_rules:MOST_OF_LABEL"),),
    "metering_labels": (ByQuota(),),
    "migrations": (AsHistory(),),
    "network_agent_descriptions": (ADMINISTRATORS,),
    "network_flavor_profiles": (Of("network_flavors"),),
    "network_flavors": (AtMost("network.flavors:MOST"),),
    "network_quotas": (ADMINISTRATORS,),
    "network_segment_ranges": (AtMost("network.segment_ranges:MOST"),),
    "network_segments": (Of("networks", "network.segments:MOST"),),
    "network_service_profiles": (AtMost("network.service_profiles:MOST"),),
    # Of all other resources, too.
    "network_tags": (Of("networks", "network.bodies:MAX_TAGS", ends="network.store:delete"),),
    "networks": (ByQuota(),),
    "operations": (AsHistory(),),
    "port_addresses": (Of("ports", "network.fixed_ips:MAX_FIXED_IPS"), AtMost("network.subnet_checks:MOST_AUTOMATIC")),
    "port_bindings": (Of("ports"),),
    "port_dhcp_options": (Of("ports", "network.dhcp_options:MAX_OPTIONS"),),
    "port_forwardings": (Of("floating_ips", "network.port_forwardings:MOST_OF_ONE"),),
    "port_security_groups": (Of("ports"),),
    "ports": (ByQuota(),),
    "processes": (AtMost("conductor.presence:FORGOTTEN_SECONDS"),),
    "qos_bandwidth_limits": (Of("qos_policies"),),
    "qos_dscp_marks": (Of("qos_policies"),),
    "qos_minimum_bandwidths": (Of("qos_policies"),),
    "qos_minimum_packet_rates": (Of("qos_policies"),),
    "qos_policies": (ByQuota(),),
    "quota_classes": (ADMINISTRATORS,),
    "quotas": (ADMINISTRATORS,),
    "rbac_policies": (ByQuota(),),
    "resized_servers": (Of("servers", ends="compute.resized:let_go"),),
    "resource_classes": (ADMINISTRATORS,),
    "resource_providers": (ADMINISTRATORS,),
    "routers": (ByQuota(),),
    "security_group_rules": (ByQuota(),),
    "security_groups": (ByQuota(),),
    "server_group_members": (ByQuota("server_group_members"), Of("server_groups")),
    "server_groups": (ByQuota("server_groups"),),
    "server_tags": (Of("servers", "compute.server_tags:MOST_TAGS"),),
    "servers": (ByQuota("instances"), AsHistory()),
    "subnet_pools": (ByQuota(),),
    "subnets": (ByQuota(),),
    "traits": (ADMINISTRATORS,),
    "trunk_subports": (Of("ports"),),
    "trunks": (Of("ports"),),
    "untold": (Of("servers"),),
}


def test_each_table_has_a_bound() -> None:
    assert set(metadata.tables) == BOUNDS.keys()


@pytest.mark.parametrize("name", BOUNDS)
def test_it_is_as_said(name: str) -> None:
    assert [one.problem(metadata.tables[name]) for one in BOUNDS[name]] == [None] * len(BOUNDS[name])


def _above(name: str) -> Iterator[str]:
    """The tables whose rows a table's rows belong to, up to one that has a bound of its own."""
    while parents := [one.parent for one in BOUNDS[name] if isinstance(one, Of)]:
        if len(parents) < len(BOUNDS[name]):
            return
        name = parents[0]
        yield name


@pytest.mark.parametrize("name", BOUNDS)
def test_what_rows_belong_to_is_bounded_in_the_end(name: str) -> None:
    above = list(_above(name))
    assert len(above) == len(set(above))
    assert above == [] or set(above) <= BOUNDS.keys()


def test_everything_of_history_and_all_that_expires_has_a_bound_by_it() -> None:
    """So the other way round: what is deleted by its age is said."""
    assert {kind.table.name for kind in history.kinds()} == {n for n, all_ in BOUNDS.items() if AsHistory() in all_}
    assert {table.name for table, _ in expired.TABLES} == {n for n, all_ in BOUNDS.items() if UntilExpired() in all_}


@pytest.mark.parametrize(
    ("bound", "problem"),
    [
        (AtMost("network.default_security_group:NAME"), "is"),
        (BySetting("no_such"), "no setting"),
        (ByQuota("no_such"), "no quota"),
        (ByQuota("floating_ips"), "none by default"),
        (ByQuota(), "no quota counts"),
        (AsHistory(), "no kind of history"),
        (UntilExpired(), "nothing deletes"),
        (Of("images"), "no foreign key"),
        (Of("images", ends="image.attributes:MOST_TAGS"), "no function"),
    ],
)
def test_what_is_not_so_is_found(bound: Bound, problem: str) -> None:
    table = sa.Table("of_nobody", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    assert problem in (bound.problem(table) or "")


def test_rows_of_another_that_may_be_any_number_are_found() -> None:
    tables = sa.MetaData()
    sa.Table("parents", tables, sa.Column("id", sa.Integer, primary_key=True))
    key: sa.Column[int] = sa.Column("parent_id", sa.ForeignKey("parents.id"))
    table = sa.Table("children", tables, sa.Column("id", sa.Integer, primary_key=True), key)
    assert "any number" in (Of("parents").problem(table) or "")
