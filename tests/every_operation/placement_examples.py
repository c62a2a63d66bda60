"""Placement: one provider with everything that it can have, and a consumer of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from cumulet.testing import Answer, JsonObject, TestCloud

from .example import READER, SERVICE, Example, Made

LATEST = {"OpenStack-API-Version": "placement 1.39"}


class Things:
    """Made once, by the administrator."""

    def __init__(self, cloud: TestCloud) -> None:
        self.owner = cloud.persona("member")
        self._admin = cloud.persona("admin")

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        answer = self._admin.request(method, f"/placement{path}", body, headers=LATEST)
        assert answer.status < 300, answer.text
        return answer

    def _provider(self) -> str:
        """A provider with an inventory of VCPUs that nobody uses."""
        provider: str = self.ask("POST", "/resource_providers", {"name": f"provider-{uuid.uuid4()}"})["uuid"]
        self.ask("POST", f"/resource_providers/{provider}/inventories", {"resource_class": "VCPU", "total": 8})
        return provider

    @cached_property
    def provider(self) -> str:
        return self._provider()

    @cached_property
    def empty_provider(self) -> str:
        """One that has nothing."""
        provider: str = self.ask("POST", "/resource_providers", {"name": "empty"})["uuid"]
        return provider

    @cached_property
    def consumer(self) -> str:
        consumer = str(uuid.uuid4())
        self.ask("PUT", f"/allocations/{consumer}", self.new_allocations(self._provider()))
        return consumer

    def new_allocations(self, provider: str) -> JsonObject:
        return {
            "allocations": {provider: {"resources": {"VCPU": 1}}},
            "project_id": self.owner.project_id,
            "user_id": self.owner.user_id,
            "consumer_generation": None,
            "consumer_type": "INSTANCE",
        }

    def generation(self, provider: str) -> int:
        generation: int = self.ask("GET", f"/resource_providers/{provider}")["generation"]
        return generation

    @cached_property
    def resource_class(self) -> str:
        self.ask("PUT", "/resource_classes/CUSTOM_WIDGETS")
        return "CUSTOM_WIDGETS"

    @cached_property
    def trait(self) -> str:
        self.ask("PUT", "/traits/CUSTOM_BLUE")
        return "CUSTOM_BLUE"


NEW = str(uuid.uuid4())


def generation(things: Things) -> int:
    return things.generation(things.provider)


PARAMETERS: Mapping[str, str | Made] = {
    "uuid": lambda t: t.provider,
    "consumer_uuid": lambda t: t.consumer,
    "resource_class": "VCPU",
}
EXAMPLES: Mapping[str, Example | tuple[Example, ...]] = {
    "POST /resource_providers": Example(may=SERVICE, body={"name": "another"}),
    "GET /resource_providers": Example(may=SERVICE),
    "GET /resource_providers/{uuid}": Example(may=SERVICE),
    "PUT /resource_providers/{uuid}": Example(may=SERVICE, body={"name": "renamed"}),
    "DELETE /resource_providers/{uuid}": Example(may=SERVICE, path={"uuid": lambda t: t.empty_provider}),
    "GET /resource_providers/{uuid}/aggregates": Example(may=SERVICE),
    "PUT /resource_providers/{uuid}/aggregates": Example(
        may=SERVICE, body={"aggregates": [NEW], "resource_provider_generation": generation}
    ),
    "PUT /resource_providers/{uuid}/aggregates (to 1.18)": Example(may=SERVICE, body=[NEW]),
    "GET /resource_providers/{uuid}/usages": Example(may=SERVICE),
    "GET /usages": Example(may=READER | SERVICE, query=lambda t: f"project_id={t.owner.project_id}"),
    "GET /allocations/{consumer_uuid}": Example(may=SERVICE),
    "GET /resource_providers/{uuid}/allocations": Example(may=SERVICE),
    "PUT /allocations/{consumer_uuid}": Example(
        may=SERVICE, path={"consumer_uuid": NEW}, body=lambda t: t.new_allocations(t.provider)
    ),
    "POST /allocations": Example(may=SERVICE, body=lambda t: {NEW: t.new_allocations(t.provider)}),
    "DELETE /allocations/{consumer_uuid}": Example(may=SERVICE),
    "POST /reshaper": Example(
        may=frozenset({"service"}),
        body=lambda t: {
            "inventories": {
                t.provider: {
                    "resource_provider_generation": t.generation(t.provider),
                    "inventories": {"VCPU": {"total": 4}},
                }
            },
            "allocations": {NEW: t.new_allocations(t.provider)},
        },
    ),
    "GET /allocation_candidates": Example(may=SERVICE, query="resources=VCPU:1"),
    "GET /resource_providers/{uuid}/inventories": Example(may=SERVICE),
    "POST /resource_providers/{uuid}/inventories": Example(may=SERVICE, body={"resource_class": "DISK_GB", "total": 5}),
    "PUT /resource_providers/{uuid}/inventories": Example(
        may=SERVICE, body={"resource_provider_generation": generation, "inventories": {"VCPU": {"total": 4}}}
    ),
    "DELETE /resource_providers/{uuid}/inventories": Example(may=SERVICE),
    "GET /resource_providers/{uuid}/inventories/{resource_class}": Example(may=SERVICE),
    "PUT /resource_providers/{uuid}/inventories/{resource_class}": Example(
        may=SERVICE, body={"resource_provider_generation": generation, "total": 4}
    ),
    "DELETE /resource_providers/{uuid}/inventories/{resource_class}": Example(may=SERVICE),
    "GET /resource_classes": Example(may=SERVICE),
    "POST /resource_classes": Example(may=SERVICE, body={"name": "CUSTOM_GADGETS"}),
    "GET /resource_classes/{name}": Example(may=SERVICE, path={"name": "VCPU"}),
    "PUT /resource_classes/{name} (to 1.6)": Example(
        may=SERVICE, path={"name": lambda t: t.resource_class}, body={"name": "CUSTOM_GADGETS"}
    ),
    "PUT /resource_classes/{name}": Example(may=SERVICE, path={"name": "CUSTOM_GADGETS"}),
    "DELETE /resource_classes/{name}": Example(may=SERVICE, path={"name": lambda t: t.resource_class}),
    "GET /traits": Example(may=SERVICE),
    "GET /traits/{name}": Example(may=SERVICE, path={"name": lambda t: t.trait}),
    "PUT /traits/{name}": Example(may=SERVICE, path={"name": "CUSTOM_RED"}),
    "DELETE /traits/{name}": Example(may=SERVICE, path={"name": lambda t: t.trait}),
    "GET /resource_providers/{uuid}/traits": Example(may=SERVICE),
    "PUT /resource_providers/{uuid}/traits": Example(
        may=SERVICE, body={"traits": [lambda t: t.trait], "resource_provider_generation": generation}
    ),
    "DELETE /resource_providers/{uuid}/traits": Example(may=SERVICE),
}
