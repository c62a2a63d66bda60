"""A request for each operation on the catalog, policies, limits and consumers, with the facts for its rules."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.identity.api import IDENTITY
from cumulet.testing import JsonObject
from tests.api.identity.oauth import authorization, read_token
from tests.api.identity.place import V3
from tests.api.identity.policy_world import CASES, Build, Persona, Request, World, flat

# -- catalog

CASES["GET /regions"] = lambda w, p: Request("/regions", {})
CASES["GET /regions/{region_id}"] = lambda w, p: Request("/regions/RegionOne", {})
CASES["POST /regions"] = lambda w, p: Request("/regions", {}, {"region": {}})
CASES["PUT /regions/{region_id}"] = lambda w, p: Request(f"/regions/{w.name()}", {}, {"region": {}})
CASES["PATCH /regions/{region_id}"] = lambda w, p: Request(
    f"/regions/{w.region()['id']}", {}, {"region": {"description": "x"}}
)
CASES["DELETE /regions/{region_id}"] = lambda w, p: Request(f"/regions/{w.region()['id']}", {})
CASES["GET /services"] = lambda w, p: Request("/services", {})
CASES["POST /services"] = lambda w, p: Request("/services", {}, {"service": {"type": "x"}})
CASES["GET /services/{service_id}"] = lambda w, p: Request(f"/services/{w.service()['id']}", {})
CASES["PATCH /services/{service_id}"] = lambda w, p: Request(
    f"/services/{w.service()['id']}", {}, {"service": {"name": "x"}}
)
CASES["DELETE /services/{service_id}"] = lambda w, p: Request(f"/services/{w.service()['id']}", {})
CASES["GET /endpoints"] = lambda w, p: Request("/endpoints", {})
CASES["POST /endpoints"] = lambda w, p: Request(
    "/endpoints", {}, {"endpoint": {"service_id": w.service()["id"], "interface": "admin", "url": "http://x/"}}
)
CASES["GET /endpoints/{endpoint_id}"] = lambda w, p: Request(f"/endpoints/{w.endpoint()['id']}", {})
CASES["PATCH /endpoints/{endpoint_id}"] = lambda w, p: Request(
    f"/endpoints/{w.endpoint()['id']}", {}, {"endpoint": {"url": "http://y/"}}
)
CASES["DELETE /endpoints/{endpoint_id}"] = lambda w, p: Request(f"/endpoints/{w.endpoint()['id']}", {})


# -- what only administrators keep, and readers of the system see: the facts do not matter


def kept(path: str, body: Callable[[World], object] = lambda w: None, *, given: bool = False) -> Build:
    """`path` has kinds of fresh things in the place of their ids. `given`: what ties them together is made, too."""

    def build(world: World, persona: Persona) -> Request:
        return Request(path.format_map(Kept(world, given=given)), {}, body(world))

    return build


class Kept(dict[str, str]):
    """Fresh things by the names of path parameters."""

    def __init__(self, world: World, *, given: bool) -> None:
        super().__init__(group="identity", option="list_limit")
        self.world, self.given = world, given

    def __missing__(self, name: str) -> str:
        self[name] = getattr(self, name.removesuffix("_id"))()
        return self[name]

    def _put(self, path: str, body: object = None) -> None:
        if self.given:
            assert self.world.admin.put(path, body).status_code in (201, 204), path

    def policy(self) -> str:
        policy = self.world.admin.made("policy", "policies", type="text", blob="x")["id"]
        base = f"/policies/{policy}/OS-ENDPOINT-POLICY"
        self._put(f"{base}/endpoints/{self['endpoint_id']}")
        self._put(f"{base}/services/{self['service_id']}")
        self._put(f"{base}/services/{self['service_id']}/regions/{self['region_id']}")
        return str(policy)

    def endpoint(self) -> str:
        return str(self.world.endpoint()["id"])

    def service(self) -> str:
        return str(self.world.service()["id"])

    def region(self) -> str:
        return str(self.world.region()["id"])

    def project(self) -> str:
        project = str(self.world.project()["id"])
        self._put(f"/OS-EP-FILTER/projects/{project}/endpoints/{self['endpoint_id']}")
        return project

    def endpoint_group(self) -> str:
        filters = {"interface": "public"}
        made = self.world.admin.made("endpoint_group", "OS-EP-FILTER/endpoint_groups", name="x", filters=filters)
        self._put(f"/OS-EP-FILTER/endpoint_groups/{made['id']}/projects/{self['project_id']}")
        return str(made["id"])

    def domain(self) -> str:
        domain = str(self.world.domain()["id"])
        self._put(f"/domains/{domain}/config", {"config": {"identity": {"list_limit": 5}}})
        return domain

    def registered_limit(self) -> str:
        return str(registered(self.world)["id"])


def registered(world: World) -> JsonObject:
    new = {"service_id": world.service()["id"], "resource_name": world.name(), "default_limit": 5}
    answer = world.admin.post("/registered_limits", {"registered_limits": [new]})
    found: JsonObject = answer.json()["registered_limits"][0]
    return found


def new_limit(world: World) -> JsonObject:
    one = registered(world)
    named = {"service_id": one["service_id"], "resource_name": one["resource_name"]}
    return {"limits": [{**named, "project_id": world.project()["id"], "resource_limit": 3}]}


_EP_GROUPS, _POLICIES, _CONFIG = "/OS-EP-FILTER/endpoint_groups", "/policies", "/domains/{domain_id}/config"
_EP_GROUP, _EP_PROJECT = f"{_EP_GROUPS}/{{endpoint_group_id}}", "/OS-EP-FILTER/projects/{project_id}"
_NEW_GROUP = {"endpoint_group": {"name": "new", "filters": {"interface": "public"}}}
_OPTIONS = {"config": {"identity": {"list_limit": 6}}}
_BODIES: dict[str, object] = {
    f"POST {_EP_GROUPS}": _NEW_GROUP,
    f"PATCH {_EP_GROUP}": {"endpoint_group": {"name": "renamed"}},
    f"POST {_POLICIES}": {"policy": {"type": "text", "blob": "x"}},
    f"PATCH {_POLICIES}/{{policy_id}}": {"policy": {"blob": "y"}},
    "PATCH /registered_limits/{registered_limit_id}": {"registered_limit": {"default_limit": 7}},
    f"PUT {_CONFIG}": _OPTIONS,
    f"PATCH {_CONFIG}": _OPTIONS,
    f"PATCH {_CONFIG}/{{group}}": _OPTIONS,
    f"PATCH {_CONFIG}/{{group}}/{{option}}": {"config": {"list_limit": 6}},
}
_KEPT = ("/OS-EP-FILTER", "/policies", "/registered_limits", "/domains/{domain_id}/config", "/domains/config")
for _operation in IDENTITY.operations:
    _name = f"{_operation.method} {_operation.path}"
    if _operation.path.startswith(_KEPT) and _operation.rules:
        _body = _BODIES.get(_name)
        CASES[_name] = kept(_operation.path, lambda w, body=_body: body, given=_operation.method != "PUT")  # type: ignore[misc]
CASES["GET /endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy"] = lambda w, p: Request(
    f"/endpoints/{with_policy(w)['endpoint_id']}/OS-ENDPOINT-POLICY/policy", {}
)
CASES["POST /registered_limits"] = kept(
    "/registered_limits",
    lambda w: {"registered_limits": [{"service_id": w.service()["id"], "resource_name": w.name(), "default_limit": 5}]},
)


def with_policy(world: World) -> Kept:
    things = Kept(world, given=True)
    assert things["policy_id"]
    return things


def on_limit(body: object = None, *, own: bool = False) -> Build:
    def build(world: World, persona: Persona) -> Request:
        new = new_limit(world)
        if own and "project" in persona.session.body:
            new["limits"][0]["project_id"] = persona.session.body["project"]["id"]
        limit = world.admin.post("/limits", new).json()["limits"][0]
        facts = {**flat("limit", limit), "target.limit.project.domain_id": "default"}
        return Request(f"/limits/{limit['id']}", facts, body)

    return build


# -- OAuth 1.0


def signed(world: World, path: str, token: dict[str, str] | None = None, **more: str) -> dict[str, str]:
    """A token of OAuth that a new consumer (or the token's) asked for."""
    consumer = {"id": token["consumer"], "secret": token["its secret"]} if token else None
    if consumer is None:
        consumer = world.admin.made("consumer", "OS-OAUTH1/consumers")
    header = authorization(f"{V3}{path}", world.place.clock.now_us() / 1e6, world.name(), consumer, token, **more)
    header["Requested-Project-Id"] = world.admin.body["project"]["id"]
    answer = world.place.nobody.request("POST", path, headers=header)
    assert answer.status_code == 201, answer.text
    return {**read_token(answer.text), "consumer": consumer["id"], "its secret": consumer["secret"]}


def on_consumer(body: object = None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        consumer = world.admin.made("consumer", "OS-OAUTH1/consumers")
        return Request(f"/OS-OAUTH1/consumers/{consumer['id']}", {}, body)

    return build


def on_access_token(suffix: str = "") -> Build:
    def build(world: World, persona: Persona) -> Request:
        asked = signed(world, "/OS-OAUTH1/request_token", callback="oob")
        role = world.roles["admin"]
        consent = world.admin.put(f"/OS-OAUTH1/authorize/{asked['id']}", {"roles": [{"id": role}]})
        verifier = consent.json()["token"]["oauth_verifier"]
        access = signed(world, "/OS-OAUTH1/access_token", asked, verifier=verifier)
        user = world.admin.body["user"]["id"]
        return Request(f"/users/{user}/OS-OAUTH1/access_tokens/{access['id']}{suffix.format(role)}", {})

    return build


_ACCESS = "/users/{user_id}/OS-OAUTH1/access_tokens"
CASES["GET /OS-OAUTH1/consumers"] = lambda w, p: Request("/OS-OAUTH1/consumers", {})
CASES["POST /OS-OAUTH1/consumers"] = lambda w, p: Request("/OS-OAUTH1/consumers", {}, {"consumer": {}})
CASES["GET /OS-OAUTH1/consumers/{consumer_id}"] = on_consumer()
CASES["PATCH /OS-OAUTH1/consumers/{consumer_id}"] = on_consumer({"consumer": {"description": "x"}})
CASES["DELETE /OS-OAUTH1/consumers/{consumer_id}"] = on_consumer()
CASES[f"GET {_ACCESS}"] = lambda w, p: Request(f"/users/{p.user_id}/OS-OAUTH1/access_tokens", {})
CASES[f"GET {_ACCESS}/{{access_token_id}}"] = on_access_token()
CASES[f"DELETE {_ACCESS}/{{access_token_id}}"] = on_access_token()
CASES[f"GET {_ACCESS}/{{access_token_id}}/roles"] = on_access_token("/roles")
CASES[f"GET {_ACCESS}/{{access_token_id}}/roles/{{role_id}}"] = on_access_token("/roles/{}")
CASES["GET /OS-REVOKE/events"] = lambda w, p: Request("/OS-REVOKE/events", {})

CASES["GET /limits"] = lambda w, p: Request("/limits", {})
CASES["GET /limits/model"] = lambda w, p: Request("/limits/model", {})
CASES["GET /limits/{limit_id}"] = on_limit()
CASES["GET /limits/{limit_id} (own)"] = on_limit(own=True)
CASES["PATCH /limits/{limit_id}"] = on_limit({"limit": {"resource_limit": 4}})
CASES["DELETE /limits/{limit_id}"] = on_limit()
CASES["POST /limits"] = kept("/limits", new_limit)
