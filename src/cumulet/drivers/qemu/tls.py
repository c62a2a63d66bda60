"""TLS for copies: the host's certificate is lent to a guest's QEMU for the length of a move, for exactly one peer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cumulet.drivers.qemu import guest_files
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.host.driver import DriverError

CREDENTIALS = "migration-tls"
PEER = "migration-peer"
_LENT = "tls"
_PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3"
_FILES = {
    "server": ("ca-cert.pem", "server-cert.pem", "server-key.pem"),
    "client": ("ca-cert.pem", "client-cert.pem", "client-key.pem"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSecurity:
    """The host's own key material, in files named as QEMU wants them (`ca.CertificateAuthority.issue_host`)."""

    folder: Path
    sandbox: Sandbox

    async def lend(
        self, hypervisor: Hypervisor, folder: GuestFolder, uid: int | None, endpoint: Literal["server", "client"]
    ) -> None:
        """Make QEMU hold credentials and verify its peer. The files are gone when this returns: QEMU has read them."""
        try:
            guest_files.write_folder(folder, _LENT, self._files(endpoint), uid=uid)
            lent = str(self.sandbox.folder_inside(folder) / _LENT)
            try:
                await hypervisor.object_add_tls(CREDENTIALS, endpoint=endpoint, folder=lent, priority=_PRIORITY)
            except DriverError:  # Held still, from an earlier move that was interrupted.
                await self.withdraw(hypervisor)
                await hypervisor.object_add_tls(CREDENTIALS, endpoint=endpoint, folder=lent, priority=_PRIORITY)
        finally:
            guest_files.remove_folder(folder, _LENT)

    async def accept_only(self, hypervisor: Hypervisor, peer: str) -> None:
        """Of all certificates of this CA, only the named host's opens the door."""
        await hypervisor.object_add_peer(PEER, identity=f"CN={peer}")

    async def withdraw(self, hypervisor: Hypervisor) -> None:
        """Drop credentials and the peer's name where they are held."""
        await hypervisor.migrate_set_parameters(tls_creds="", tls_hostname="", tls_authz="")
        held = await hypervisor.objects()
        for name in (CREDENTIALS, PEER):
            if name in held:
                await hypervisor.object_del(name)

    def _files(self, endpoint: Literal["server", "client"]) -> dict[str, bytes]:
        try:
            return {name: (self.folder / name).read_bytes() for name in _FILES[endpoint]}
        except FileNotFoundError as missing:
            raise DriverError(f"TLS_MATERIAL: this host has no {Path(missing.filename).name}") from missing
