"""Refusals in the two wordings, and with the two kinds, that Network's clients know."""

from __future__ import annotations

from enum import StrEnum

from cumulet.errors import BadRequest, Conflict


def invalid(text: str) -> BadRequest:
    """A value that is well-formed but cannot be."""
    return BadRequest(f"Invalid input for operation: {text}", reason="InvalidInput")


def bad(resource: str, text: str) -> BadRequest:
    """Something that cannot be done with a resource of this kind."""
    return BadRequest(f"Bad {resource} request: {text}", reason="BadRequest")


def needs_port_security(network_id: str) -> BadRequest:
    """Groups filter nothing on a port without port security."""
    return BadRequest(
        f"Port security must be enabled and port on network {network_id} must have an IP address in order to use "
        "security groups.",
        reason="PortSecurityAndIPRequiredForSecurityGroups",
    )


def pairs_need_port_security() -> Conflict:
    """Address pairs let nothing more pass on a port without port security."""
    return Conflict(
        "Port Security must be enabled in order to have allowed address pairs on a port.",
        reason="AddressPairAndPortSecurityRequired",
    )


class Refused(StrEnum):
    """Reasons of what is refused to a server, by which `network.attaching` tells refusals apart."""

    NO_SUCH_NETWORK = "NO_SUCH_NETWORK"
    NO_SUCH_PORT = "NO_SUCH_PORT"
    ADDRESS_IN_USE = "ADDRESS_IN_USE"
    SEVERAL_NETWORKS = "SEVERAL_NETWORKS"
