"""What an image says of the agent that runs in its guests."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.web.boolean_words import boolean

FEATURE = "guest-agent"
"""Hosts offer it whose agents know of it; older ones would not understand the description of such a guest."""


def is_in(image_properties: Mapping[str, str]) -> bool:
    """Whether QEMU's guest agent is."""
    return boolean(image_properties.get("hw_qemu_guest_agent", "")) is True


def has_to_quiesce(image_properties: Mapping[str, str]) -> bool:
    """Whether an image of such a guest is worth nothing unless the guest was asked to rest."""
    return boolean(image_properties.get("os_require_quiesce", "")) is True


def administrator(image_properties: Mapping[str, str]) -> str:
    """Whose password is changed."""
    default = "Administrator" if image_properties.get("os_type") == "windows" else "root"
    return image_properties.get("os_admin_user") or default
