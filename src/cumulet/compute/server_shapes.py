"""What is read of a server in order to show it, and what is shown. Columns and attributes are in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NotRequired, TypedDict

import msgspec
import sqlalchemy as sa

from cumulet.compute.store import hosts, servers
from cumulet.db.engine import Select


class ServerRow(msgspec.Struct, gc=False):
    """A row of `servers`: attributes of a struct are ten times as fast as those of a database row.

    ``*_text`` is a JSON column that stays text until somebody looks at it.
    """

    number: int
    id: str
    project_id: str
    user_id: str
    name: str
    hostname: str
    description: str | None
    reservation_id: str
    launch_index: int
    image_id: str | None
    key_name: str | None
    user_data: str | None
    config_drive: bool
    requested_zone: str | None
    disk_config: str
    access_ipv4: str | None
    access_ipv6: str | None
    host: str | None
    vm_state: str
    task_state: str | None
    power_state: str
    progress: int
    locked: bool
    locked_reason: str | None
    fault_code: int | None
    fault_message: str | None
    fault_details: str | None
    fault_at_us: int | None
    created_at_us: int
    updated_at_us: int
    launched_at_us: int | None
    terminated_at_us: int | None
    deleted_at_us: int | None
    flavor_text: str
    metadata_text: str
    image_properties_text: str
    scheduler_hints_text: str


class HostRow(msgspec.Struct, gc=False):
    """A row of `hosts`."""

    name: str
    zone: str
    up: bool
    forced_down: bool
    disabled: bool


server_row: Callable[..., ServerRow] = ServerRow
"""From the values of `COLUMNS`."""
host_row: Callable[..., HostRow] = HostRow
"""From the values of `HOST_COLUMNS`."""


def _column(name: str) -> sa.ColumnElement[object]:
    if not name.endswith("_text"):
        return servers.c[name]
    as_text: sa.ColumnElement[object] = sa.type_coerce(sa.cast(servers.c[name.removesuffix("_text")], sa.Text), sa.Text)
    return as_text.label(name)


COLUMNS = [_column(name) for name in ServerRow.__struct_fields__]
HOST_COLUMNS: list[sa.Column[object]] = [hosts.c[name] for name in HostRow.__struct_fields__]


def select_for_views() -> Select:
    """Rows of a `ServerRow`'s columns."""
    return sa.select(*COLUMNS)


class Link(TypedDict):
    rel: str
    href: str


class ImageOfServer(TypedDict):
    """What a server was made from."""

    id: str
    links: list[Link]
    properties: NotRequired[dict[str, object]]


class Fault(TypedDict):
    code: int
    created: str | None
    message: str
    details: NotRequired[str]


Address = TypedDict(
    "Address", {"version": int, "addr": str, "OS-EXT-IPS:type": str, "OS-EXT-IPS-MAC:mac_addr": str}, total=False
)

ServerView = TypedDict(
    "ServerView",
    {
        "id": str,
        "name": str,
        "status": str,
        "tenant_id": str,
        "user_id": str,
        "metadata": dict[str, object],
        "hostId": str,
        "image": ImageOfServer | str,
        "flavor": dict[str, object],
        "created": str,
        "updated": str,
        "addresses": dict[str, list[Address]],
        "accessIPv4": str,
        "accessIPv6": str,
        "links": list[Link],
        "OS-DCF:diskConfig": str,
        "progress": int,
        "fault": Fault,
        "locked": bool,
        "locked_reason": str | None,
        "description": str | None,
        "tags": list[str],
        "trusted_image_certificates": None,
        "server_groups": list[str],
        "security_groups": list[dict[str, str]],
        "pinned_availability_zone": str | None,
        "scheduler_hints": dict[str, list[object]],
        "host_status": str,
        "config_drive": str,
        "key_name": str | None,
        "user_data": str | None,
        "adminPass": str,
        "os-extended-volumes:volumes_attached": list[dict[str, str]],
        "OS-EXT-AZ:availability_zone": str,
        "OS-SRV-USG:launched_at": str | None,
        "OS-SRV-USG:terminated_at": str | None,
        "OS-EXT-STS:task_state": str | None,
        "OS-EXT-STS:vm_state": str,
        "OS-EXT-STS:power_state": int,
        "OS-EXT-SRV-ATTR:host": str | None,
        "OS-EXT-SRV-ATTR:instance_name": str,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": str | None,
        "OS-EXT-SRV-ATTR:hostname": str,
        "OS-EXT-SRV-ATTR:kernel_id": str,
        "OS-EXT-SRV-ATTR:ramdisk_id": str,
        "OS-EXT-SRV-ATTR:launch_index": int,
        "OS-EXT-SRV-ATTR:reservation_id": str,
        "OS-EXT-SRV-ATTR:root_device_name": str,
        "OS-EXT-SRV-ATTR:user_data": str | None,
    },
    total=False,
)
"""A server as the API shows it: which keys there are follows from the microversion and what the caller may see."""
