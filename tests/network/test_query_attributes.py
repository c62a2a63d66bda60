"""Every list of Network takes the filters and the orders that Neutron takes, and refuses all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cumulet.network.address_scopes import ADDRESS_SCOPES
from cumulet.network.flavors import FLAVORS
from cumulet.network.metering_labels import METERING_LABELS
from cumulet.network.metering_rules import METERING_RULES
from cumulet.network.port_forwardings import FORWARDINGS
from cumulet.network.qos_rule_types import RULE_TYPES
from cumulet.network.qos_rules import kind_of
from cumulet.network.rbac_policies import RBAC_POLICIES
from cumulet.network.resource import Kind
from cumulet.network.security_group_rules import RULES
from cumulet.network.segment_ranges import RANGES
from cumulet.network.segments import SEGMENTS
from cumulet.network.service_profiles import SERVICE_PROFILES
from cumulet.network.tags import KINDS

TABLE = Path(__file__).with_name("neutron_query_attributes.tsv")
QOS_RULES = [kind_of(rules, "") for rules in RULE_TYPES.values()]
OURS = {
    ("routers", "ha"): "admins find them",
    ("routers", "distributed"): "always false",
    ("routers", "status"): "always ACTIVE; Tempest asks so",
}
"""What Neutron refuses and this takes."""


def upstream(plural: str, which: int) -> set[str]:
    rows = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    names = {row[1] for row in rows if row[0] == plural and row[which] != "-" and "tags" not in row[1]}
    return names | {"project_id"} if "tenant_id" in names else names


@pytest.mark.parametrize(
    "kind",
    [
        *KINDS,
        RULES,
        FORWARDINGS,
        RBAC_POLICIES,
        *QOS_RULES,
        ADDRESS_SCOPES,
        METERING_LABELS,
        METERING_RULES,
        SEGMENTS,
        RANGES,
        FLAVORS,
        SERVICE_PROFILES,
    ],
    ids=lambda kind: kind.plural,
)
def test_a_list_is_filtered_and_ordered_by_what_neutron_takes(kind: Kind[Any]) -> None:
    ours = set(kind.filters) - {name for plural, name in OURS if plural == kind.plural}
    assert ours == upstream(kind.plural, 2)
    assert set(kind.sorts) == upstream(kind.plural, 3)
