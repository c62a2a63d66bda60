"""The types of QoS rules: what a rule of each type says, and the feature of hosts that keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import sqlalchemy as sa

from cumulet.network.bodies import whole_number
from cumulet.network.hosts import BANDWIDTH_LIMITS, DSCP_MARKS, MINIMUM_BANDWIDTHS, MINIMUM_PACKET_RATES
from cumulet.network.qos_records import (
    BandwidthLimit,
    DscpMark,
    MinimumBandwidth,
    MinimumPacketRate,
    QosRule,
    bandwidth_limits,
    dscp_marks,
    minimum_bandwidths,
    minimum_packet_rates,
)
from cumulet.web.schema import UNSET, Body, Convert, Json, Unset

MOST = 2**31 - 1
DIRECTIONS = ("egress", "ingress")
VALID_DSCP_MARKS = (0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 46, 48, 56)
"""The marks that a standard defines: class selectors, assured forwarding and expedited forwarding."""


class RuleType(msgspec.Struct, frozen=True, kw_only=True):
    """One type of rules. A policy has one rule of it, or, with `by`, one for each value of that column."""

    name: str
    record: type[QosRule]
    table: sa.Table
    columns: tuple[str, ...]
    new: type[Body]
    change: type[Body]
    title: str
    """What such a rule is, with an article, for policy's descriptions."""
    feature: str
    """The feature of hosts that can apply it."""
    defaults: Mapping[str, object] = msgspec.field(default_factory=dict)
    by: str | None = None
    means: Callable[[Mapping[str, object]], bool] = lambda _values: True
    """Whether a rule with these values asks anything of a host."""
    alias_follows: bool = False
    """Whether the policy rules of the aliases refer to those of the rules, as upstream's do for this type."""
    parameters: tuple[Mapping[str, object], ...]
    """The parameters, as upstream describes them for a type."""

    def asks(self, rule: QosRule) -> bool:
        """Whether a rule asks anything of a host."""
        return self.means(self.values(rule))

    def values(self, rule: QosRule) -> dict[str, object]:
        return {name: getattr(rule, name) for name in self.columns}


def _thousands(value: object) -> int:
    number = whole_number(value)
    if not 0 <= number <= MOST:
        raise ValueError(f"'{number}' is not in range 0 through {MOST}")
    return number


def _mark(value: object) -> int:
    number = whole_number(value)
    if number not in VALID_DSCP_MARKS:
        raise ValueError(f"'{number}' is not in {list(VALID_DSCP_MARKS)}")
    return number


_NUMBER = Json({"type": ["integer", "string"], "maxLength": 19})
Thousands = Annotated[int, _NUMBER, Convert(_thousands)]
Mark = Annotated[int, _NUMBER, Convert(_mark)]


class NewLimit(Body):
    max_kbps: Thousands
    max_burst_kbps: Thousands | Unset = UNSET
    direction: Literal["egress", "ingress"] | Unset = UNSET


class ChangeLimit(Body):
    max_kbps: Thousands | Unset = UNSET
    max_burst_kbps: Thousands | Unset = UNSET
    direction: Literal["egress", "ingress"] | Unset = UNSET


class NewMinimumBandwidth(Body):
    min_kbps: Thousands
    direction: Literal["egress", "ingress"] | Unset = UNSET


class ChangeMinimumBandwidth(Body):
    min_kbps: Thousands | Unset = UNSET
    direction: Literal["egress", "ingress"] | Unset = UNSET


class NewMinimumPacketRate(Body):
    min_kpps: Thousands
    direction: Literal["any", "egress", "ingress"] | Unset = UNSET


class ChangeMinimumPacketRate(Body):
    min_kpps: Thousands | Unset = UNSET
    direction: Literal["any", "egress", "ingress"] | Unset = UNSET


class NewMark(Body):
    dscp_mark: Mark


class ChangeMark(Body):
    dscp_mark: Mark | Unset = UNSET


def _range(name: str) -> Mapping[str, object]:
    values = {"start": 0, "end": MOST}
    return {"parameter_name": name, "parameter_type": "range", "parameter_values": values}


def _choices(name: str, values: Sequence[object]) -> Mapping[str, object]:
    return {"parameter_name": name, "parameter_type": "choices", "parameter_values": list(values)}


_TYPES = (
    RuleType(
        name="bandwidth_limit",
        record=BandwidthLimit,
        table=bandwidth_limits,
        columns=("direction", "max_kbps", "max_burst_kbps"),
        new=NewLimit,
        change=ChangeLimit,
        title="a limit of bandwidth",
        feature=BANDWIDTH_LIMITS,
        defaults={"direction": "egress", "max_burst_kbps": 0},
        by="direction",
        means=lambda values: bool(values["max_kbps"]),
        parameters=(_range("max_kbps"), _range("max_burst_kbps"), _choices("direction", DIRECTIONS)),
    ),
    RuleType(
        name="dscp_marking",
        record=DscpMark,
        table=dscp_marks,
        columns=("dscp_mark",),
        new=NewMark,
        change=ChangeMark,
        title="a DSCP mark",
        feature=DSCP_MARKS,
        parameters=(_choices("dscp_mark", VALID_DSCP_MARKS),),
    ),
    RuleType(
        name="minimum_bandwidth",
        record=MinimumBandwidth,
        table=minimum_bandwidths,
        columns=("direction", "min_kbps"),
        new=NewMinimumBandwidth,
        change=ChangeMinimumBandwidth,
        title="a promise of bandwidth",
        feature=MINIMUM_BANDWIDTHS,
        defaults={"direction": "egress"},
        by="direction",
        parameters=(_range("min_kbps"), _choices("direction", DIRECTIONS)),
    ),
    RuleType(
        name="minimum_packet_rate",
        record=MinimumPacketRate,
        table=minimum_packet_rates,
        columns=("direction", "min_kpps"),
        new=NewMinimumPacketRate,
        change=ChangeMinimumPacketRate,
        title="a promise of packets a second",
        feature=MINIMUM_PACKET_RATES,
        defaults={"direction": "egress"},
        by="direction",
        alias_follows=True,
        parameters=(_range("min_kpps"), _choices("direction", ("any", *DIRECTIONS))),
    ),
)
RULE_TYPES: Mapping[str, RuleType] = {kind.name: kind for kind in _TYPES}
"""By name."""


def clash(
    rules: RuleType, values: Mapping[str, object], other: RuleType, others: Mapping[str, object]
) -> tuple[object, object] | None:
    """The values of a new rule and of a present one that contradict each other; None if they do not.

    They do where more is promised than may pass, and where packets are counted by direction in one of them only.
    """
    directions = (values.get("direction"), others.get("direction"))
    if rules.name == other.name == "minimum_packet_rate":
        return directions if directions.count("any") == 1 else None
    both = {**values, **others}
    if directions[0] != directions[1] or not {"min_kbps", "max_kbps"} <= both.keys():
        return None
    if int(str(both["min_kbps"])) <= int(str(both["max_kbps"])):
        return None
    own, found = ("min_kbps", "max_kbps") if "min_kbps" in values else ("max_kbps", "min_kbps")
    return values[own], others[found]
