"""A change of power records what a look at the guest would say, so no reconciler has to correct it."""

from __future__ import annotations

import pytest

from cumulet.compute.operations import OBSERVED
from cumulet.compute.power import POWER, Verb
from cumulet.testing import TestCloud
from tests.api.servers import image_and_flavor


@pytest.mark.parametrize("verb", Verb)
def test_the_record_after_a_verb_is_that_of_a_guest_seen_so(verb: Verb) -> None:
    power = POWER[verb]
    assert (power.vm_state, power.power_state) in OBSERVED.values()


@pytest.mark.parametrize("action", ["os-stop", "pause", "suspend"])
def test_a_look_after_a_verb_finds_nothing(cloud: TestCloud, action: str) -> None:
    member, admin = cloud.persona("member"), cloud.persona("admin")
    wanted = {"server": {"name": "one", "networks": "none"} | image_and_flavor(member)}
    server_id = member.compute("POST", "/servers", wanted)["server"]["id"]
    member.wait_for_status(server_id, "ACTIVE")
    assert member.action(server_id, {action: None}).status == 202
    cloud.idle()
    before = member.server(server_id)
    cloud.reconcile()
    assert member.server(server_id) == before
    assert admin.compute("GET", "/cumulet/findings")["findings"] == []
