"""Network's rules are Neutron 29's registered defaults, name by name and check by check."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from cumulet import network
from cumulet.web.policy import RULES

DEFAULTS = Path(__file__).with_name("neutron_policy_defaults.tsv")
"""Name, check string and scope, as Neutron 29.0.0 registers them."""

OURS_ALONE = {"update_port_binding"}
"""Rules for what upstream lets fall to its rule `default`; stricter here."""


def test_names_checks_and_scopes_are_upstreams() -> None:
    for module in pkgutil.iter_modules(network.__path__):
        importlib.import_module(f"cumulet.network.{module.name}")
    upstream = {}
    for line in DEFAULTS.read_text(encoding="utf-8").splitlines():
        name, check, scope = line.split("\t")
        upstream[name] = (check, scope)
    ours = {
        rule.name: (rule.check, ",".join(rule.scope))
        for rule in RULES.values()
        if rule.service == "network" and rule.name not in OURS_ALONE
    }
    assert len(ours) > 150
    assert ours == upstream
