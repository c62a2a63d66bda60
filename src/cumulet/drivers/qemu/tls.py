"""TLS for copies: what a guest's QEMU is lent for one move, for exactly one peer, and how it is taken back."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cumulet.drivers.qemu import guest_files, move_authority
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.move_authority import Role
from cumulet.drivers.qemu.record import Authority, GuestFolder
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.host.endpoint import Peer

CREDENTIALS = ("migration-tls", "migration-tls-2")
"""Used in turn: the new credentials are made before those that they replace are removed."""
PEER = "migration-peer"
LENT = "tls"
"""The folder in which QEMU finds it, for a moment."""
_PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3"
_DH_PARAMETERS = b"""\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""The group ffdhe2048 of RFC 7919. A server that finds none makes its own: QEMU answers nothing for that long, from 0.1
to some seconds of a processor's time. TLS 1.3 does not use it."""
_ENDPOINTS = {"source": "client", "destination": "server"}
_PEERS: dict[Role, Role] = {"source": "destination", "destination": "source"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSecurity:
    """How a host lends and takes back. It has no key itself: each move brings its own (`move_authority`)."""

    sandbox: Sandbox

    async def lend(
        self,
        hypervisor: Hypervisor,
        folder: GuestFolder,
        uid: int | None,
        role: Role,
        authority: Authority,
        peer: Peer,
        lifetime: datetime.timedelta,
    ) -> str:
        """Make QEMU hold new credentials, and use them for every connection it makes or accepts from now on.

        Returns their id. The files are gone when this returns: QEMU has read them.
        """
        held = await hypervisor.objects()
        new, old = CREDENTIALS if CREDENTIALS[0] not in held else CREDENTIALS[::-1]
        if new in held:  # Both: a renewal was interrupted before it was done.
            await hypervisor.object_del(new)
        lent = move_authority.lent(authority, role, lifetime)
        endpoint = _ENDPOINTS[role]
        files = {
            "ca-cert.pem": peer.authority.encode(),
            f"{endpoint}-cert.pem": lent.certificate,
            f"{endpoint}-key.pem": lent.key,
        }
        if endpoint == "server":
            files["dh-params.pem"] = _DH_PARAMETERS
        try:
            guest_files.write_folder(folder, LENT, files, uid=uid)
            inside = str(self.sandbox.folder_inside(folder) / LENT)
            await hypervisor.object_add_tls(new, endpoint=endpoint, folder=inside, priority=_PRIORITY)
        finally:
            guest_files.remove_folder(folder, LENT)
        peer_name = move_authority.name_of(_PEERS[role], peer.move)
        if role == "source":
            await hypervisor.migrate_set_parameters(tls_creds=new, tls_hostname=peer_name)
        else:
            if PEER not in held:
                await hypervisor.object_add_peer(PEER, identity=f"CN={peer_name}")
            await hypervisor.migrate_set_parameters(tls_creds=new, tls_authz=PEER)
        if old in held:
            await hypervisor.object_del(old)
        return new

    async def withdraw(self, hypervisor: Hypervisor) -> None:
        """Drop credentials and the peer's name where they are held."""
        await hypervisor.migrate_set_parameters(tls_creds="", tls_hostname="", tls_authz="")
        held = await hypervisor.objects()
        for name in (*CREDENTIALS, PEER):
            if name in held:
                await hypervisor.object_del(name)
