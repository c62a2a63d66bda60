"""Refusals that no test comes through, each with its reason. The list only shrinks."""

from __future__ import annotations

_BETWEEN = "two requests at one moment: no test can come between, and the transaction decides"
_ELSEWHERE = "its tests run it in a process of its own"
_MACHINE = "a machine on which the tiny image cannot be built is not at hand"
_NO_ORPHANS = "records that rest on one another go together: this is what decides if they ever did not"
_OSLO = "what oslo.utils alone refuses has been refused by our own inspection before"

UNSEEN: dict[str, str] = {
    "bus/unix_socket.py UnixSocketLink.send: HostUnreachable connection to agent lost:": _ELSEWHERE,
    "compute/hosts.py require_same: OtherState still has servers (": _ELSEWHERE,
    "compute/hosts.py require_same: OtherState the state was made with --driver": _ELSEWHERE,
    "compute/flavors.py flavor_by_id: NotFound Flavor": "whoever asks has found it just before",
    "compute/server_actions.py inject_network_info: Conflict Instance": (
        "only administrators may, whom no lock stops, unless an operator's policy says otherwise"
    ),
    "compute/resize.py resize_server: BadRequest Flavor (2)": "no request disables a flavor",
    "compute/moments.py moment_us: BadRequest Invalid time:": "the query's schema has refused it before",
    "conductor/runner.py Runner._store: LeaseLost": "the lease is looked at in the same transaction just before",
    "fleet/local_agents.py AgentProcesses._answers: HostUnreachable the agent of": _ELSEWHERE,
    "fleet/local_networks.py LocalNetworks.make: NoNamespaces": "only where namespaces are forbidden",
    "identity/authentication.py _issue: Refused the password was changed during the login": _BETWEEN,
    "identity/delegations.py _given_by_trust: Gone the trust is another user's": _NO_ORPHANS,
    "identity/delegations.py given_by: Gone delegations are for projects": _NO_ORPHANS,
    "identity/delegations.py pedigree: Gone a trust it was made from is gone": _NO_ORPHANS,
    "identity/trusted.py use_trust: Forbidden No remaining uses for trust:": _BETWEEN,
    "identity/users.py change_password.work: Unauthorized the password was changed meanwhile": _BETWEEN,
    "image/images.py _switch: Conflict Image": _BETWEEN,
    "image/imports.py begin: Conflict Image": _BETWEEN,
    "image/images.py delete_image.delete: NotFound Failed to find image": _BETWEEN,
    "image/inspection.py Inspection._judge_by_oslo: Refused The content matches several image formats or none.": _OSLO,
    "image/inspection.py Inspection._judge_by_oslo: Refused The format of the content cannot be determined.": _OSLO,
    "image/debian.py _run: CannotBuild failed:": _MACHINE,
    "network/for_compute.py _as_nova_says: BadRequest": "the address has been looked at in the same transaction before",
    "network/mac_addresses.py new_mac: Conflict Unable to complete operation for network": (
        "sixteen million addresses would have to be taken"
    ),
    "placement/providers.py change: Conflict The resource provider was changed at the same time.": _BETWEEN,
    "web/audit.py copy_while_written: Broken its files change faster than they can be copied": (
        "a trail would have to be rotated a hundred times while it is copied"
    ),
}
