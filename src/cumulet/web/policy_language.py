"""The language of policy rules: or, and, not, parentheses, and checks of the form kind:match, compiled to closures.

The language and its meaning are oslo.policy's (a test compares every verdict); the stock engine takes 150 to 300
microseconds a check and a quarter of a second to import, these closures take a few microseconds and no import.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Mapping

from cumulet.web.operation import Caller, Facts

Check = Callable[[Caller, Facts], bool]


class PolicyError(Exception):
    """A rule that cannot be used: it stops the start."""


_TOKEN = re.compile(r"\s+")
_SUBSTITUTION = re.compile(r"%\(([^()]+)\)s")


def _tokens(text: str) -> list[str]:
    """Words, with the parentheses at their ends split off; those of %(name)s stay within the word."""
    out: list[str] = []
    for word in _TOKEN.split(text.strip()):
        if not word:
            continue
        core = word.lstrip("(")
        out += "(" * (len(word) - len(core))
        bare = core.rstrip(")")
        closing = len(core) - len(bare)
        if bare:
            out.append(bare)
        out += ")" * closing
    return out


class Compiler:
    """Check strings to closures; rules that refer to each other are compiled once, circles are refused."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._done: dict[str, Check] = {}
        self._same: dict[tuple[str, str], Check] = {}
        """By service and text: most rules of a service say what another one says."""
        self._open: list[str] = []
        self._service = ""
        self.referenced: set[str] = set()

    def rule(self, name: str, service: str) -> Check:
        """Compile the rule of this name or key, as `service` sees it."""
        own = f"{service}/{name}"
        if own in self._texts:
            name = own
        if name in self._done:
            return self._done[name]
        if name not in self._texts:
            raise PolicyError(f"rule:{name} is used by {self._open[-1]!r} but does not exist")
        if name in self._open:
            raise PolicyError(f"the policy rules {' > '.join([*self._open, name])} go in a circle")
        self._open.append(name)
        outer, self._service = self._service, service
        text = self._texts[name]
        check = self._same.get((service, text))
        if check is None:
            check = self._same[service, text] = self._text(text)
        self._done[name] = check
        self._service = outer
        self._open.pop()
        return self._done[name]

    def _text(self, text: str) -> Check:
        if not text:
            return _allow
        tokens = _tokens(text)
        check, end = self._either(tokens, 0)
        if end != len(tokens):
            raise PolicyError(f"cannot understand the policy rule {self._open[-1]!r}: {text!r}")
        return check

    def _either(self, tokens: list[str], at: int) -> tuple[Check, int]:
        first, at = self._both(tokens, at)
        checks = [first]
        while at < len(tokens) and tokens[at].lower() == "or":
            following, at = self._both(tokens, at + 1)
            checks.append(following)
        return (_any(checks) if len(checks) > 1 else first), at

    def _both(self, tokens: list[str], at: int) -> tuple[Check, int]:
        first, at = self._one(tokens, at)
        checks = [first]
        while at < len(tokens) and tokens[at].lower() == "and":
            following, at = self._one(tokens, at + 1)
            checks.append(following)
        return (_all(checks) if len(checks) > 1 else first), at

    def _one(self, tokens: list[str], at: int) -> tuple[Check, int]:
        if at >= len(tokens) or tokens[at] == ")" or tokens[at].lower() in ("or", "and"):
            raise PolicyError(f"cannot understand the policy rule {self._open[-1]!r}")
        token = tokens[at]
        if token.lower() == "not":
            inner, at = self._one(tokens, at + 1)
            return (lambda caller, facts: not inner(caller, facts)), at
        if token == "(":  # noqa: S105 - a parenthesis
            inner, at = self._either(tokens, at + 1)
            if at >= len(tokens) or tokens[at] != ")":
                raise PolicyError(f"a parenthesis is not closed in the policy rule {self._open[-1]!r}")
            return inner, at + 1
        return self._check(token), at + 1

    def _check(self, token: str) -> Check:
        if token == "@":  # noqa: S105 - a check
            return _allow
        if token == "!":  # noqa: S105 - a check
            return _deny
        kind, colon, match = token.partition(":")
        if not colon:
            raise PolicyError(f"cannot understand {token!r} in the policy rule {self._open[-1]!r}")
        if kind == "rule":
            self.referenced.add(match)
            return self.rule(match, self._service)
        if kind == "role":
            return _role(match)
        if kind == "field":
            return _field(match)
        if kind in ("http", "https"):
            raise PolicyError(f"{kind}: checks are not offered (policy rule {self._open[-1]!r})")
        return _generic(kind, match, self._open[-1])


def _allow(_caller: Caller, _facts: Facts) -> bool:
    return True


def _deny(_caller: Caller, _facts: Facts) -> bool:
    return False


def _any(checks: list[Check]) -> Check:
    if len(checks) == 2:
        first, second = checks
        return lambda caller, facts: first(caller, facts) or second(caller, facts)
    several = tuple(checks)

    def either(caller: Caller, facts: Facts) -> bool:
        for check in several:  # noqa: SIM110 - a loop is twice as fast as any() with a generator
            if check(caller, facts):
                return True
        return False

    return either


def _all(checks: list[Check]) -> Check:
    if len(checks) == 2:
        first, second = checks
        return lambda caller, facts: first(caller, facts) and second(caller, facts)
    several = tuple(checks)

    def both(caller: Caller, facts: Facts) -> bool:
        for check in several:  # noqa: SIM110
            if not check(caller, facts):
                return False
        return True

    return both


@functools.lru_cache(1024)
def _lowered(roles: frozenset[str]) -> frozenset[str]:
    return frozenset(role.lower() for role in roles)


def _role(match: str) -> Check:
    if "%" in match:
        text = _template(match)

        def named_by_fact(caller: Caller, facts: Facts) -> bool:
            wanted = text(facts)
            return wanted is not None and wanted.lower() in _lowered(caller.roles)

        return named_by_fact
    wanted = match.lower()
    return lambda caller, _facts: wanted in _lowered(caller.roles)


def _template(match: str) -> Callable[[Facts], str | None]:
    """`%(name)s` filled in from the facts; None when one is missing, which never matches."""
    pieces = _SUBSTITUTION.split(match)
    if any("%" in literal for literal in pieces[::2]):
        raise PolicyError(f"cannot understand the substitution in {match!r}")
    if len(pieces) == 1:
        return lambda _facts: match
    if len(pieces) == 3 and not pieces[0] and not pieces[2]:
        name = pieces[1]

        def only(facts: Facts) -> str | None:
            try:
                return str(facts[name])
            except KeyError:
                return None

        return only

    def filled(facts: Facts) -> str | None:
        try:
            return "".join(str(facts[p]) if n % 2 else p for n, p in enumerate(pieces))
        except KeyError:
            return None

    return filled


CREDENTIALS: dict[str, Callable[[Caller], object]] = {
    "user_id": lambda c: c.user_id,
    "user": lambda c: c.user_id,
    "user_domain_id": lambda c: c.user_domain_id,
    "project_id": lambda c: c.project_id,
    "tenant_id": lambda c: c.project_id,
    "tenant": lambda c: c.project_id,
    "project_domain_id": lambda c: c.project_domain_id,
    "domain_id": lambda c: c.domain_id,
    "system_scope": lambda c: "all" if c.system else None,
    "system": lambda c: "all" if c.system else None,
    "is_admin": lambda c: c.is_admin,
    "is_admin_project": lambda _c: True,
    "token.domain.id": lambda c: c.domain_id,
    "token.project.domain.id": lambda c: c.project_domain_id,
    "service_user_id": lambda _c: None,
    "service_project_id": lambda _c: None,
    "service_roles": lambda _c: None,
}
"""What a check may ask of the caller; another name in a policy file stops the start."""


def _generic(kind: str, match: str, where: str) -> Check:
    wanted = _template(match)
    credential = CREDENTIALS.get(kind)
    if credential is None:
        try:
            literal = str(ast.literal_eval(kind))
        except (ValueError, SyntaxError):
            raise PolicyError(f"{kind}: in the policy rule {where!r} is nothing a token says") from None
        return lambda _caller, facts: wanted(facts) == literal
    if "%" not in match:
        return lambda caller, _facts: str(credential(caller)) == match
    only = _SUBSTITUTION.fullmatch(match)
    if only is not None:
        name = only[1]

        def equals_fact(caller: Caller, facts: Facts) -> bool:
            try:
                return str(credential(caller)) == str(facts[name])
            except KeyError:
                return False

        return equals_fact
    return lambda caller, facts: wanted(facts) == str(credential(caller))


def _field(match: str) -> Check:
    """Neutron's ``field:networks:shared=True``, ``field:port:device_owner=~^network:``: a fact against a constant."""
    _resource, colon, comparison = match.partition(":")
    name, equals, value = comparison.partition("=")
    if not (colon and equals and name):
        raise PolicyError(f"cannot understand field:{match}")
    if value.startswith("~"):
        pattern = re.compile(value[1:])

        def matches(_caller: Caller, facts: Facts) -> bool:
            fact = facts.get(name)
            return fact is not None and pattern.match(str(fact)) is not None

        return matches
    return lambda _caller, facts: name in facts and facts[name] is not None and str(facts[name]) == value
