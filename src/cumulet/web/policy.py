"""Who may do what: rules declared where they are used, changed by operators' oslo.policy files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from cumulet.web.operation import Caller, Facts
from cumulet.web.policy_language import Check, Compiler, PolicyError

Scope = Literal["project", "domain", "system"]


class RuleDefault(msgspec.Struct, frozen=True, kw_only=True):
    """A declared rule. `scope` empty: any scope (base rules)."""

    name: str
    check: str
    scope: tuple[Scope, ...]
    description: str
    base: bool
    service: str = ""
    """Whose it is. Base rules are a service's own: upstream's services use the same names for different checks."""

    @property
    def key(self) -> str:
        return f"{self.service}/{self.name}" if self.base and self.service else self.name


RULES: dict[str, RuleDefault] = {}
"""Every rule declared by the modules that were imported, by its key, base rules included."""


def rule(name: str, default: str, *, scope: tuple[Scope, ...] = ("project",), description: str = "") -> str:
    """Declare a rule with upstream's default check string and scope types; returns its name."""
    _declare(
        RuleDefault(name=name, check=default, scope=scope, description=description, base=False, service=_declaring())
    )
    return name


def base_rule(name: str, check: str, description: str = "") -> str:
    """Declare a named building block for the rules of the same service."""
    _declare(RuleDefault(name=name, check=check, scope=(), description=description, base=True, service=_declaring()))
    return name


def _declaring() -> str:
    """The service whose file is declaring: ``compute`` for ``cumulet.compute.rules``."""
    module: str = sys._getframe(2).f_globals["__name__"]
    return module.split(".")[1] if module.startswith("cumulet.") else ""


def _declare(declared: RuleDefault) -> None:
    known = RULES.setdefault(declared.key, declared)
    if (known.check, known.scope, known.base) != (declared.check, declared.scope, declared.base):
        raise PolicyError(f"the policy rule {declared.name!r} is declared twice, differently")


class Policy:
    """The compiled rules. `check` is the only question."""

    __slots__ = ("_checks", "overridden")

    def __init__(self, checks: dict[str, Check], overridden: Mapping[str, str]) -> None:
        self._checks = checks
        self.overridden = overridden

    @classmethod
    def load(cls, policy_file: Path | None = None) -> Policy:
        """Compile all declared rules, with an operator's policy.yaml over the defaults."""
        overrides = _read_policy_file(policy_file) if policy_file is not None else {}
        return cls.compile(RULES.values(), overrides)

    @classmethod
    def compile(cls, rules: Iterable[RuleDefault], overrides: Mapping[str, str] | None = None) -> Policy:
        overrides = overrides or {}
        declared = {r.key: r for r in rules}
        # An operator's text for a base rule counts in every service that has one of that name. He may add helper rules
        # of his own; one that nothing refers to is a typing error.
        texts = {key: overrides.get(r.name, r.check) for key, r in declared.items()}
        names = {r.name for r in declared.values()}
        texts |= {name: text for name, text in overrides.items() if name not in names}
        compiler = Compiler(texts)
        checks = {key: _scoped(compiler.rule(key, r.service), r.scope) for key, r in declared.items()}
        for name in overrides.keys() - names:
            compiler.rule(name, "")
        unknown = overrides.keys() - names - compiler.referenced
        if unknown:
            raise PolicyError(f"the policy file names rules that do not exist: {', '.join(sorted(unknown))}")
        return cls(checks, overrides)

    def check(self, name: str, caller: Caller, facts: Facts) -> bool:
        """Whether `caller` passes rule `name` for the thing described by `facts`."""
        return self._checks[name](caller, facts)

    def require_known(self, names: Iterable[str]) -> None:
        """Stop the start when an operation names a rule that nobody declared."""
        unknown = sorted(set(names) - self._checks.keys())
        if unknown:
            raise PolicyError(f"operations name policy rules that are not declared: {', '.join(unknown)}")


def _read_policy_file(path: Path) -> dict[str, str]:
    import yaml  # only when an operator has a file: it takes 20 ms to import

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:  # Not an OSError: it says nothing about what the file says.
        raise PolicyError(f"cannot read the policy file {path}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in content.items()):
        raise PolicyError(f"the policy file {path} must map rule names to check strings")
    return content


def _scoped(check: Check, scope: tuple[Scope, ...]) -> Check:
    """oslo.policy's enforce_scope: a token scoped otherwise is refused whatever its roles."""
    if not scope or set(scope) == {"project", "domain", "system"}:
        return check
    project, domain, system = "project" in scope, "domain" in scope, "system" in scope

    def scoped(caller: Caller, facts: Facts) -> bool:
        if caller.system:
            return system and check(caller, facts)
        if caller.domain_id:
            return domain and check(caller, facts)
        return project and check(caller, facts)

    return scoped
