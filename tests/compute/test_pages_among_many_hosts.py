"""A page of servers reads the hosts of its servers, however many hosts there are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import cumulet.testing
from cumulet.compute import server_shapes, server_views
from cumulet.compute.server_shapes import HostRow
from tests.api.test_compute_servers import LATEST, create

HOSTS = 12


def test_a_page_reads_no_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[HostRow] = []
    make = server_shapes.host_row

    def noted(*values: object) -> HostRow:
        read.append(make(*values))
        return read[-1]

    monkeypatch.setattr(server_views, "host_row", noted)
    with cumulet.testing.cloud(hosts=HOSTS) as cloud:
        admin = cloud.persona("admin")
        for name in ("host1", "host1", "host2"):
            create(admin, name=name, host=name)
        read.clear()
        answer = admin.compute("GET", "/servers/detail", version=LATEST)
        shown: list[Mapping[str, object]] = answer["servers"]
        assert {one["OS-EXT-SRV-ATTR:host"] for one in shown} == {"host1", "host2"}
        assert {one["host_status"] for one in shown} == {"UP"}
        assert sorted(row.name for row in read) == ["host1", "host2"]
