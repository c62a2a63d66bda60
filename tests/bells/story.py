"""A cloud with Bells beside its own services: hang a bell on a host, and ring it. Run in a process of its own."""

from __future__ import annotations

import cumulet.testing
from tests.bells.part import BELLS_PART


def main() -> None:
    with cumulet.testing.cloud(hosts=1, more_parts=[BELLS_PART]) as cloud:
        member, reader = cloud.persona("member"), cloud.persona("reader")
        assert reader.request("POST", "/bells/v1/hosts/host1/bells").status == 403
        bell = member.request("POST", "/bells/v1/hosts/host1/bells")
        assert (bell.status, bell["host"]) == (201, "host1")
        path = f"/bells/v1/bells/{bell['id']}"
        assert member.request("POST", f"{path}/ring").status == 202
        cloud.idle()
        assert member.request("GET", path)["rung"] == 1
        cloud.faults.fail("ringing", step="ring", host="host1")
        assert member.request("POST", f"{path}/ring").status == 202
        cloud.idle()
        assert member.request("GET", path)["rung"] == 1
        assert "bell" in {entry["type"] for entry in member.request("GET", "/identity/v3/auth/catalog")["catalog"]}
    print("rung")


if __name__ == "__main__":
    main()
