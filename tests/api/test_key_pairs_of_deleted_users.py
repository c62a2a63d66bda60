"""Key pairs of users who are gone are forgotten as other history is; those of others stay."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.compute.keypairs import key_pairs
from cumulet.testing import Client, TestCloud

from .test_history import forget

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


def _user(admin: Client, name: str) -> str:
    """A user with two key pairs."""
    user = admin.request("POST", "/identity/v3/users", {"user": {"name": name}})["user"]["id"]
    for pair in ("one", "two"):
        body = {"keypair": {"name": pair, "user_id": user, "public_key": KEY}}
        assert admin.compute("POST", "/os-keypairs", body, version="2.92").status == 201
    return str(user)


def test_they_go_by_age_and_by_number(cloud: TestCloud, admin: Client) -> None:
    stays, first, second = (_user(admin, name) for name in ("stays", "first", "second"))

    def left() -> list[str]:
        of_all = sa.select(key_pairs.c.user_id)
        return cloud.embedded.db.read(lambda tx: [row.user_id for row in tx.all(of_all)])

    assert admin.request("DELETE", f"/identity/v3/users/{first}").status == 204
    assert admin.request("DELETE", f"/identity/v3/users/{second}").status == 204
    forget(cloud)
    assert sorted(left()) == sorted([stays, first, second] * 2)
    forget(cloud, history_rows=2)
    assert sorted(left()) == sorted([stays, stays, first, second])
    forget(cloud, history_days=-1)
    assert left() == [stays, stays]
