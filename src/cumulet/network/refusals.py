"""Refusals in the two wordings, and with the two kinds, that Network's clients know."""

from __future__ import annotations

from cumulet.errors import BadRequest


def invalid(text: str) -> BadRequest:
    """A value that is well-formed but cannot be."""
    return BadRequest(f"Invalid input for operation: {text}", reason="InvalidInput")


def bad(resource: str, text: str) -> BadRequest:
    """Something that cannot be done with a resource of this kind."""
    return BadRequest(f"Bad {resource} request: {text}", reason="BadRequest")
