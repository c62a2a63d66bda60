"""Which methods a user has to show together: the options `multi_factor_auth_enabled` and `multi_factor_auth_rules`.

A rule is a list of methods; who has shown all methods of one rule is let in. As upstream's, rules count only where they
are switched on and there is one. A token that was exchanged carries the methods of the one it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.errors import BadRequest
from cumulet.identity.store import User
from cumulet.identity.tokens import Refused

FACTORS = ("password", "totp", "token", "application_credential", "oauth1")
RULES: dict[str, object] = {
    "type": ["array", "null"],
    "maxItems": 16,
    "items": {"type": "array", "minItems": 1, "maxItems": 8, "items": {"type": "string", "maxLength": 64}},
}


def _rules(options: Mapping[str, object]) -> list[list[str]]:
    """Each a list of methods that are shown together; the schema has checked them when they were taken."""
    rules = options.get("multi_factor_auth_rules")
    return rules if isinstance(rules, list) else []


def refuse_unknown_factors(options: Mapping[str, object]) -> None:
    """400 for a rule with a method that nobody can show: it would lock the user out."""
    for rule in _rules(options):
        for method in rule:
            if method not in FACTORS:
                raise BadRequest(
                    f"Invalid input for field multi_factor_auth_rules: the methods are {', '.join(FACTORS)}."
                )


def require_factors(user: User, shown: tuple[str, ...]) -> None:
    """`Refused` unless all methods of one of the user's rules were shown."""
    rules = _rules(user.options)
    if user.options.get("multi_factor_auth_enabled") and rules and not any(set(rule) <= set(shown) for rule in rules):
        raise Refused("not all methods of one of the user's rules were shown")
