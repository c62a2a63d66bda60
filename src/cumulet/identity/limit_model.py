"""/limits/model: how limits of projects below each other count."""

from __future__ import annotations

from cumulet.identity.api import ANYWHERE, IDENTITY
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

MODEL = rule("identity:get_limit_model", "", scope=ANYWHERE)


@IDENTITY.operation("GET", "/limits/model", rules=(Rule(MODEL),))
def show_limit_model(call: Call[None, None]) -> dict[str, object]:
    """Show how limits of projects below each other count: apart."""
    description = "Limit enforcement and validation does not take project hierarchy into consideration."
    return {"model": {"name": "flat", "description": description}}
