"""The meaning of a security group rule, apart from its spelling, and the check of rules that cannot be filters."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TypedDict

from cumulet.errors import BadRequest
from cumulet.network.group_records import SecurityGroupRule

PROTOCOLS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "hopopt": 0,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "ip": 0,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
"""Names of IP protocols (IANA), as Neutron takes them."""
_PORT_PROTOCOLS = frozenset({"tcp", "udp", "sctp", "dccp", "udplite", "6", "17", "132", "33", "136"})
_WITH_PORTS = frozenset(PROTOCOLS[name] for name in ("tcp", "udp", "sctp", "dccp", "udplite"))
ALL_PORTS, EVERYWHERE = (1, 65_535), ("0.0.0.0/0", "::/0")
_ICMP = frozenset({"icmp", "icmpv6", "ipv6-icmp", "1", "58"})
_IPV6_ONLY = frozenset(name for name in PROTOCOLS if name.startswith("ipv6")) | {"icmpv6", "58"}


def protocol_name(value: object) -> str | None:
    """A protocol by name or number as text; None for any."""
    name = str(value).lower()
    if name == "any":
        return None
    if name in PROTOCOLS:
        return name
    if name.isascii() and name.isdigit() and len(name) <= 3 and int(name) <= 255:
        return str(int(name))
    raise ValueError(
        f"Security group rule protocol {value} not supported. Only protocol values {sorted(PROTOCOLS)} and integer "
        "representations [0 to 255] are supported."
    )


def protocol_number(name: str | None, ethertype: str) -> int | None:
    """The number of a protocol given by name or number, for an ethertype; None for any protocol."""
    if name in (None, "ip"):
        return None
    number = PROTOCOLS.get(name or "", -1)
    number = int(name or "") if number < 0 else number
    return PROTOCOLS["ipv6-icmp"] if ethertype == "IPv6" and number == PROTOCOLS["icmp"] else number


def spellings(protocol: str) -> list[str]:
    """All spellings of a protocol."""
    number = PROTOCOLS[protocol] if protocol in PROTOCOLS else int(protocol)
    return [str(number), *(name for name, same in PROTOCOLS.items() if same == number)]


class RuleContent(TypedDict):
    """The columns of a rule that say which packets it lets pass."""

    direction: str
    ethertype: str
    protocol: str | None
    port_range_min: int | None
    port_range_max: int | None
    remote_ip_prefix: str | None
    remote_group_id: str | None
    remote_address_group_id: str | None


def content_of(rule: SecurityGroupRule) -> RuleContent:
    return {
        "direction": rule.direction,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_range_min": rule.port_range_min,
        "port_range_max": rule.port_range_max,
        "remote_ip_prefix": rule.remote_ip_prefix,
        "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": rule.remote_address_group_id,
    }


def meaning(rule_: RuleContent) -> tuple[object, ...]:
    """What a rule lets pass. It is equal for two rules with the same meaning, however they are spelled."""
    ethertype, protocol = rule_["ethertype"], protocol_number(rule_["protocol"], rule_["ethertype"])
    ports = (rule_["port_range_min"], rule_["port_range_max"])
    if ports == ALL_PORTS and protocol in _WITH_PORTS:
        ports = (None, None)
    prefix = None if rule_["remote_ip_prefix"] in EVERYWHERE else rule_["remote_ip_prefix"]
    groups = (rule_["remote_group_id"], rule_["remote_address_group_id"])
    return (rule_["direction"], ethertype, protocol, ports, prefix, *groups)


def check_rule(rule_: RuleContent) -> None:
    """400 for a rule that no host could turn into a filter."""
    protocol, low, high = rule_["protocol"], rule_["port_range_min"], rule_["port_range_max"]
    prefix = rule_["remote_ip_prefix"]
    if sum(remote is not None for remote in (prefix, rule_["remote_group_id"], rule_["remote_address_group_id"])) > 1:
        raise BadRequest(
            "Only remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.",
            reason="SecurityGroupMultipleRemoteEntites",
        )
    version = 4 if rule_["ethertype"] == "IPv4" else 6
    if prefix is not None and ip_network(prefix, strict=False).version != version:
        raise BadRequest(
            f"Conflicting value ethertype {rule_['ethertype']} for CIDR {prefix}",
            reason="SecurityGroupRuleParameterConflict",
        )
    if protocol in _IPV6_ONLY and version == 4:
        raise BadRequest(
            f"Invalid ethertype {rule_['ethertype']} for protocol {protocol}.",
            reason="SecurityGroupEthertypeConflictWithProtocol",
        )
    for value in (low, high):
        if value is not None and not 0 <= value <= 65_535:
            raise BadRequest(f"Invalid value for port {value}", reason="SecurityGroupInvalidPortValue")
    if low is None and high is None:
        return
    if protocol in _ICMP:
        _check_icmp(low, high)
    elif protocol in _PORT_PROTOCOLS:
        if low is None or high is None or not 1 <= low <= high <= 65_535:
            raise BadRequest(
                "For TCP/UDP/SCTP/DCCP/UDP-Lite protocols, port_range_min must be <= port_range_max, both from 1 to "
                "65535.",
                reason="SecurityGroupInvalidPortRange",
            )
    else:
        raise BadRequest(
            "Port range is only supported for TCP/UDP/SCTP/DCCP/UDP-Lite and ICMP protocols.",
            reason="SecurityGroupProtocolRequiredWithPorts",
        )


def _check_icmp(kind: int | None, code: int | None) -> None:
    for name, value in (("type", kind), ("code", code)):
        if value is not None and not 0 <= value <= 255:
            raise BadRequest(
                f"Invalid value for ICMP {name} {value}. It must be 0 to 255.", reason="SecurityGroupInvalidIcmpValue"
            )
    if kind is None:
        raise BadRequest(
            f"ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing.",
            reason="SecurityGroupMissingIcmpType",
        )


_ETHERTYPES = {"ipv4": "IPv4", "ipv6": "IPv6"}


def ethertype_asked(value: str) -> str:
    """An ethertype in a query: in upper or lower case. Other text stays as it is."""
    return _ETHERTYPES.get(value.lower(), value)


def ethertype(value: str) -> str:
    """An ethertype in Neutron's spelling. ValueError for other text."""
    if value.lower() not in _ETHERTYPES:
        raise ValueError(f"'{value}' is not in ['IPv4', 'IPv6']")
    return _ETHERTYPES[value.lower()]
