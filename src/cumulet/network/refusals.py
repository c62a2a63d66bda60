"""Refusals that several modules of Network raise, in Neutron's words."""

from __future__ import annotations

from enum import StrEnum

from cumulet.errors import BadRequest, Conflict


def invalid(text: str) -> BadRequest:
    """400 for a value that is well-formed but not possible."""
    return BadRequest(f"Invalid input for operation: {text}", reason="InvalidInput")


def bad(resource: str, text: str) -> BadRequest:
    """400 for what cannot be done with a resource of this kind."""
    return BadRequest(f"Bad {resource} request: {text}", reason="BadRequest")


def needs_port_security(network_id: str) -> BadRequest:
    """400 for security groups on a port without port security, where they would filter nothing."""
    return BadRequest(
        f"Port security must be enabled and port on network {network_id} must have an IP address in order to use "
        "security groups.",
        reason="PortSecurityAndIPRequiredForSecurityGroups",
    )


def pairs_need_port_security() -> Conflict:
    """409 for address pairs on a port without port security, where everything passes."""
    return Conflict(
        "Port Security must be enabled in order to have allowed address pairs on a port.",
        reason="AddressPairAndPortSecurityRequired",
    )


class Refused(StrEnum):
    """Reasons of refusals to a server. `network.attaching` chooses a status by them."""

    NO_SUCH_NETWORK = "NO_SUCH_NETWORK"
    NO_SUCH_PORT = "NO_SUCH_PORT"
    ADDRESS_IN_USE = "ADDRESS_IN_USE"
    SEVERAL_NETWORKS = "SEVERAL_NETWORKS"
