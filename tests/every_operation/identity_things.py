"""Identity's things: a project, a user and the rest that nobody is logged in with, in the domain Default."""

from __future__ import annotations

import base64
import hmac
import itertools
from functools import cached_property
from typing import Any

from cumulet.clock import iso_us
from cumulet.identity.ec2_signatures import Request, signature_of
from cumulet.testing import Answer, JsonObject, TestCloud
from tests.api.identity.oauth import authorization, read_token


class Things:
    """What administrators keep, made once."""

    def __init__(self, cloud: TestCloud) -> None:
        self._cloud = cloud
        self._admin = cloud.persona("admin")
        self._numbers = itertools.count()

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        answer = self._admin.request(method, f"/identity/v3{path}", body)
        assert answer.status < 300, answer.text
        return answer

    def _new(self, kind: str, **attributes: Any) -> str:
        identifier: str = self.ask("POST", f"/{kind}s", {kind: attributes})[kind]["id"]
        return identifier

    def name(self) -> str:
        return f"example-{next(self._numbers)}"

    @cached_property
    def domain(self) -> str:
        """One that may be deleted."""
        return self._new("domain", name=self.name(), enabled=False)

    @cached_property
    def project(self) -> str:
        return self._new("project", name=self.name(), domain_id="default", tags=["blue"])

    @cached_property
    def user(self) -> str:
        return self._new("user", name=self.name(), domain_id="default")

    @cached_property
    def role(self) -> str:
        return self._new("role", name=self.name())

    @cached_property
    def implied_role(self) -> str:
        return self._new("role", name=self.name())

    @cached_property
    def prior_role(self) -> str:
        prior = self._new("role", name=self.name())
        self.ask("PUT", f"/roles/{prior}/implies/{self.implied_role}")
        return prior

    @cached_property
    def granted_role(self) -> str:
        """A role of the user's in the project, in the domain and in the system."""
        role = self._new("role", name=self.name())
        for place in (f"projects/{self.project}", "domains/default", "system"):
            self.ask("PUT", f"/{place}/users/{self.user}/roles/{role}")
        self._let_inherit(f"users/{self.user}", role)
        return role

    @cached_property
    def group(self) -> str:
        return self._new("group", name=self.name(), domain_id="default")

    @cached_property
    def group_of_user(self) -> str:
        """One the user is in."""
        group = self._new("group", name=self.name(), domain_id="default")
        self.ask("PUT", f"/groups/{group}/users/{self.user}")
        return group

    @cached_property
    def role_of_group(self) -> str:
        """A role of the group's in the project, in the domain and in the system, and in all below them."""
        role = self._new("role", name=self.name())
        for place in (f"projects/{self.project}", "domains/default", "system"):
            self.ask("PUT", f"/{place}/groups/{self.group}/roles/{role}")
        self._let_inherit(f"groups/{self.group}", role)
        return role

    def _let_inherit(self, holder: str, role: str) -> None:
        for place in (f"projects/{self.project}", "domains/default"):
            self.ask("PUT", f"/OS-INHERIT/{place}/{holder}/roles/{role}/inherited_to_projects")

    @cached_property
    def region(self) -> str:
        return self._new("region")

    @cached_property
    def service(self) -> str:
        return self._new("service", type=self.name())

    @cached_property
    def endpoint(self) -> str:
        return self._new("endpoint", service_id=self.service, interface="public", url="https://example.org/")

    @cached_property
    def token(self) -> str:
        """Another user's."""
        token = self._cloud.user(self.name(), project=self.name(), roles=("member",)).token
        assert token is not None
        return token

    @cached_property
    def owner(self) -> str:
        """The user of the persona `member`: what only its owner may touch is that persona's."""
        return str(self._cloud.persona("member").user_id)

    def _own(self, path: str, body: Any) -> Any:
        answer = self._cloud.persona("member").request("POST", f"/identity/v3{path}", body)
        assert answer.status < 300, answer.text
        return answer

    @property
    def owner_project(self) -> str:
        """Where the owner has a role."""
        return str(self._cloud.persona("member").project_id)

    @cached_property
    def application_credential(self) -> str:
        body = {"application_credential": {"name": self.name()}}
        made = self._own(f"/users/{self.owner}/application_credentials", body)
        identifier: str = made["application_credential"]["id"]
        return identifier

    @cached_property
    def access_rule(self) -> str:
        """One that no application credential has any more."""
        rule = {"service": "compute", "method": "GET", "path": f"/v2.1/{self.name()}"}
        path = f"/users/{self.owner}/application_credentials"
        made = self._own(path, {"application_credential": {"name": self.name(), "access_rules": [rule]}})
        credential = made["application_credential"]
        self.ask("DELETE", f"{path}/{credential['id']}")
        identifier: str = credential["access_rules"][0]["id"]
        return identifier

    @property
    def new_trust(self) -> JsonObject:
        return {
            "trustor_user_id": self.owner,
            "trustee_user_id": self.user,
            "project_id": self._cloud.persona("member").project_id,
            "impersonation": True,
            "roles": [{"name": "member"}],
        }

    @cached_property
    def trust(self) -> str:
        identifier: str = self._own("/OS-TRUST/trusts", {"trust": self.new_trust})["trust"]["id"]
        return identifier

    @cached_property
    def trusted_role(self) -> str:
        identifier: str = self.ask("GET", f"/OS-TRUST/trusts/{self.trust}/roles")["roles"][0]["id"]
        return identifier

    @cached_property
    def credential(self) -> str:
        body = {"credential": {"type": "cert", "blob": "x", "user_id": self.owner}}
        identifier: str = self._own("/credentials", body)["credential"]["id"]
        return identifier

    @cached_property
    def access(self) -> str:
        """An EC2 access key of the owner's."""
        body = {"tenant_id": self.owner_project}
        identifier: str = self._own(f"/users/{self.owner}/credentials/OS-EC2", body)["credential"]["access"]
        return identifier

    @cached_property
    def signed(self) -> JsonObject:
        """A request that the owner signed with an EC2 credential."""
        path = f"/users/{self.owner}/credentials/OS-EC2/{self.access}"
        secret = self.ask("GET", path)["credential"]["secret"]
        stamp = str(iso_us(self._cloud.clock.now_us()))[:19] + "Z"
        params = {"SignatureVersion": "2", "Timestamp": stamp, "AWSAccessKeyId": self.access}
        asked = Request(verb="GET", host="h", path="/", params=params, headers={}, body_hash="", signature="")
        return {
            "access": self.access,
            "verb": "GET",
            "host": "h",
            "path": "/",
            "params": params,
            "signature": signature_of(asked, secret.encode()),
        }

    @cached_property
    def signed_for_s3(self) -> JsonObject:
        path = f"/users/{self.owner}/credentials/OS-EC2/{self.access}"
        secret: str = self.ask("GET", path)["credential"]["secret"]
        stamp = str(iso_us(self._cloud.clock.now_us()))[:19].replace("-", "").replace(":", "") + "Z"
        scope = [stamp[:8], "r", "s3", "aws4_request"]
        text = "\n".join(("AWS4-HMAC-SHA256", stamp, "/".join(scope), "0" * 64)).encode()
        key = b"AWS4" + secret.encode()
        for part in scope:
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, text, "sha256").hexdigest()
        return {"access": self.access, "token": base64.urlsafe_b64encode(text).decode(), "signature": signature}

    @cached_property
    def policy(self) -> str:
        return str(self.ask("POST", "/policies", {"policy": {"type": "text", "blob": "x"}})["policy"]["id"])

    @cached_property
    def associated_policy(self) -> str:
        """One for the endpoint, for the service, and for the service in the region."""
        policy = str(self.ask("POST", "/policies", {"policy": {"type": "text", "blob": "x"}})["policy"]["id"])
        service = f"services/{self.service}"
        for place in (f"endpoints/{self.endpoint}", service, f"{service}/regions/{self.region}"):
            self.ask("PUT", f"/policies/{policy}/OS-ENDPOINT-POLICY/{place}")
        return policy

    @cached_property
    def endpoint_group(self) -> str:
        group = {"name": self.name(), "filters": {"interface": "public"}}
        made = self.ask("POST", "/OS-EP-FILTER/endpoint_groups", {"endpoint_group": group})["endpoint_group"]
        self.ask("PUT", f"/OS-EP-FILTER/endpoint_groups/{made['id']}/projects/{self.filtered_project}")
        return str(made["id"])

    @cached_property
    def filtered_project(self) -> str:
        """One that was given an endpoint by name, and a group of endpoints."""
        project = self._new("project", name=self.name(), domain_id="default")
        self.ask("PUT", f"/OS-EP-FILTER/projects/{project}/endpoints/{self.endpoint}")
        return project

    @property
    def new_registered_limit(self) -> JsonObject:
        return {"service_id": self.service, "resource_name": self.name(), "default_limit": 5}

    def register(self) -> JsonObject:
        body = {"registered_limits": [self.new_registered_limit]}
        made: JsonObject = self.ask("POST", "/registered_limits", body)["registered_limits"][0]
        return made

    @cached_property
    def registered_limit(self) -> str:
        """One that no project has a limit of."""
        return str(self.register()["id"])

    @property
    def new_limit(self) -> JsonObject:
        named = {"service_id": self.service, "resource_name": self.register()["resource_name"]}
        return {**named, "project_id": self._cloud.persona("member").project_id, "resource_limit": 3}

    @cached_property
    def limit(self) -> str:
        return str(self.ask("POST", "/limits", {"limits": [self.new_limit]})["limits"][0]["id"])

    @cached_property
    def consumer(self) -> dict[str, str]:
        made: dict[str, str] = self.ask("POST", "/OS-OAUTH1/consumers", {"consumer": {}})["consumer"]
        return made

    def _signed(self, path: str, token: dict[str, str] | None = None, **more: str) -> dict[str, str]:
        """The answer to what the consumer signed: a token of OAuth, with its secret."""
        nobody = self._cloud.anonymous()
        url, seconds = f"{self._cloud.url}{path}", self._cloud.clock.now_us() / 1e6
        headers = authorization(url, seconds, self.name(), self.consumer, token, **more)
        headers["Requested-Project-Id"] = str(self._cloud.persona("admin").project_id)
        answer = nobody.request("POST", path, headers=headers)
        assert answer.status == 201, answer.text
        return read_token(answer.text)

    @cached_property
    def request_token(self) -> dict[str, str]:
        return self._signed("/identity/v3/OS-OAUTH1/request_token", callback="oob")

    @cached_property
    def access_token(self) -> str:
        """One of the administrator's."""
        asked = self._signed("/identity/v3/OS-OAUTH1/request_token", callback="oob")
        consent = self.ask("PUT", f"/OS-OAUTH1/authorize/{asked['id']}", {"roles": [{"id": self.admin_role}]})
        verifier = str(consent["token"]["oauth_verifier"])
        return self._signed("/identity/v3/OS-OAUTH1/access_token", asked, verifier=verifier)["id"]

    @property
    def administrator(self) -> str:
        return str(self._admin.user_id)

    @cached_property
    def admin_role(self) -> str:
        return str(self.ask("GET", "/roles?name=admin")["roles"][0]["id"])

    @cached_property
    def configured_domain(self) -> str:
        domain = self._new("domain", name=self.name())
        self.ask("PUT", f"/domains/{domain}/config", {"config": {"identity": {"list_limit": 5}}})
        return domain
