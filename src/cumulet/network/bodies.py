"""Types of attributes that several of Network's bodies have, with Neutron's spellings and limits."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

from cumulet.network.resource_columns import LONGEST_PROJECT_ID
from cumulet.web.annotations import bounded
from cumulet.web.boolean_words import FALSE, TRUE
from cumulet.web.schema import UNSET, Body, Convert, Json, Unset

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-]?[0-9a-fA-F]{2}){5}\Z")

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)

MAX_DNS_NAME = 255
MAX_TAGS = 50
MAX_TAG_LENGTH = 255


def truth_value(value: Any) -> bool:
    """Booleans, 0 and 1, and their usual words in any case."""
    if isinstance(value, str):
        word = value.lower()
        if word in TRUE:
            return True
        if word in FALSE:
            return False
    elif value in (0, 1) and not isinstance(value, float):
        return bool(value)
    raise ValueError(f"'{value}' cannot be converted to boolean")


def whole_number(value: Any) -> int:
    """An integer, or its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return bounded(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII):
        return int(value)
    raise ValueError(f"'{value}' is not an integer")


def plain_address(value: str) -> str:
    """An IP address in its canonical spelling; no zone, which would name an interface of ours."""
    if "%" in value:
        raise ValueError(f"'{value}' is not a valid IP address")
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a valid IP address") from None


def plain_range(value: str) -> str:
    """A range in canonical spelling, without host bits."""
    if "/" not in value or "%" in value:
        raise ValueError(f"'{value}' is not a valid CIDR")
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a valid CIDR") from None


def plain_subnet(value: str) -> str:
    """A range in canonical spelling, as in Neutron: host bits are dropped, and an address alone is a range of one."""
    try:
        if "%" not in value:
            return str(ip_network(value, strict=False))
    except ValueError:
        pass
    raise ValueError(f"'{value}' is not a valid IP subnet")


def address_or_range(value: str) -> str:
    return plain_subnet(value) if "/" in value else plain_address(value)


def is_dns_name(value: str) -> bool:
    """Whether it is a host's name, or a whole domain name (RFC 1123), whose last part is not a number alone."""
    labels = value.removesuffix(".").split(".")
    right = len(value) <= MAX_DNS_NAME and all(_LABEL.fullmatch(label) for label in labels)
    return right and not (len(labels) > 1 and labels[-1].isdigit())


def dns_name(value: str) -> str:
    """A host's name, or a whole domain name, in lower case; it may be empty."""
    if value and not is_dns_name(value):
        raise ValueError(f"'{value}' not a valid PQDN or FQDN")
    return value.lower()


def relative_dns_name(value: str) -> str:
    """A name that is completed by a domain."""
    if value.endswith("."):
        raise ValueError(f"'{value}' is a FQDN. It should be a relative domain name")
    return dns_name(value)


def dns_domain(value: str) -> str:
    """A whole domain name with its last dot, which leaves room for a name in it; it may be empty."""
    if value and not value.endswith("."):
        raise ValueError(f"'{value}' is not a FQDN")
    return dns_name(value)


def plain_mac(value: str) -> str:
    """A unicast MAC address as aa:bb:cc:dd:ee:ff."""
    if _MAC.match(value) is None:
        raise ValueError(f"'{value}' is not a valid MAC address")
    digits = re.sub(r"[:-]", "", value).lower()
    if digits == "0" * 12 or int(digits[:2], 16) & 1:
        raise ValueError(f"'{value}' is not a valid MAC address")
    return ":".join(digits[n : n + 2] for n in range(0, 12, 2))


Truth = Annotated[bool, Json({"type": ["boolean", "integer", "string"], "maxLength": 5}), Convert(truth_value)]
Number = Annotated[int, Json({"type": ["integer", "string"], "maxLength": 19}), Convert(whole_number)]
Name = Annotated[str, Json({"maxLength": 255})]
ProjectId = Annotated[str, Json({"maxLength": LONGEST_PROJECT_ID, "minLength": 1})]
Id = Annotated[str, Json({"format": "uuid"})]
IpAddress = Annotated[str, Json({"maxLength": 64}), Convert(plain_address)]
IpRange = Annotated[str, Json({"maxLength": 64}), Convert(plain_range)]
SubnetRange = Annotated[str, Json({"maxLength": 64}), Convert(plain_subnet)]
AddressOrRange = Annotated[str, Json({"maxLength": 64}), Convert(address_or_range)]
MacAddress = Annotated[str, Json({"maxLength": 17}), Convert(plain_mac)]
RelativeDnsName = Annotated[str, Json({"maxLength": MAX_DNS_NAME - 3}), Convert(relative_dns_name)]
DnsDomain = Annotated[str, Json({"maxLength": MAX_DNS_NAME - 2}), Convert(dns_domain)]
DnsName = Annotated[str, Json({"maxLength": MAX_DNS_NAME}), Convert(dns_name)]
Tag = Annotated[str, Json({"minLength": 1, "maxLength": MAX_TAG_LENGTH, "format": "one line"})]
Tags = Annotated[list[Tag], Json({"maxItems": MAX_TAGS})]
PhysicalNetwork = Annotated[str, Json({"minLength": 1, "maxLength": 64, "format": "one line"})]
ZoneHints = Annotated[list[Name], Json({"maxItems": 8})]


class NewOwned(Body):
    """What everything new that belongs to a project may say: to which."""

    project_id: ProjectId | Unset = UNSET
    tenant_id: ProjectId | Unset = UNSET


class NewResource(NewOwned):
    """What every new resource may say."""

    description: Name | Unset | None = UNSET


class NewNamed(NewResource):
    name: Name | Unset = UNSET


class ResourceChange(Body):
    """What may be changed of every resource."""

    description: Name | Unset | None = UNSET


class NamedChange(ResourceChange):
    name: Name | Unset = UNSET


def text(value: object) -> str:
    """The value if it is text; else (absent, or null) the empty text."""
    return value if isinstance(value, str) else ""


def either(value: Any, default: Any) -> Any:
    """The value given, or the default."""
    return default if value is UNSET else value
