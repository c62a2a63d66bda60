"""Image: an image of a member's that another project shares, and what can be done with one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from cumulet.testing import Answer, Client, JsonObject, TestCloud

from .example import ADMIN, ANY_MEMBER, ANY_READER, ANYONE, MEMBER, READER, SERVICE, Example, Made

SEEN = ("get_image",)
"""The rule by which an image is in sight."""
SEEN_MEMBER = (*SEEN, "get_member")
PATCH_TYPE = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


class Things:
    """Images of a member's. `shared`: with the project of `shared_with`, which none of the personas is in."""

    def __init__(self, cloud: TestCloud) -> None:
        self.owner = cloud.persona("member")
        self._admin = cloud.persona("admin")
        self.shared_with = cloud.persona("third_member")

    def ask(self, client: Client, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        answer = client.request(method, f"/image/v2{path}", body, **more)
        assert answer.status < 300, answer.text
        return answer

    def new(self) -> str:
        """One without data."""
        body = {"name": "mine", "disk_format": "raw", "container_format": "bare", "tags": ["blue"]}
        made: str = self.ask(self.owner, "POST", "/images", body)["id"]
        return made

    def _new_with(self, data: str) -> str:
        """One with its `file`, or with data that is put aside for it (`stage`)."""
        image = self.new()
        self.ask(self.owner, "PUT", f"/images/{image}/{data}", content=b"\0" * 512, headers=DATA)
        return image

    @cached_property
    def image(self) -> str:
        return self._new_with("file")

    @cached_property
    def deactivated(self) -> str:
        image = self._new_with("file")
        self.ask(self._admin, "POST", f"/images/{image}/actions/deactivate")
        return image

    @cached_property
    def shared(self) -> str:
        image = self._new_with("file")
        self.ask(self.owner, "POST", f"/images/{image}/members", {"member": self.shared_with.project_id})
        return image

    @cached_property
    def staged(self) -> str:
        return self._new_with("stage")

    @cached_property
    def task(self) -> str:
        """Of an import that is begun."""
        image = self._new_with("stage")
        self.ask(self.owner, "POST", f"/images/{image}/import", {"method": {"name": "glance-direct"}})
        task: str = self.ask(self.owner, "GET", f"/images/{image}/tasks")["tasks"][0]["id"]
        return task

    def new_namespace(self) -> str:
        """One of the member's project, which an administrator made, with one of everything."""
        body = {
            "namespace": f"n-{uuid.uuid4()}",
            "owner": self.owner.project_id,
            "objects": [{"name": "disk"}],
            "properties": {"speed": {"title": "Speed", "type": "integer"}},
            "tags": [{"name": "blue"}],
            "resource_type_associations": [{"name": "OS::Glance::Image"}],
        }
        made: str = self.ask(self._admin, "POST", "/metadefs/namespaces", body)["namespace"]
        return made

    @cached_property
    def namespace(self) -> str:
        return self.new_namespace()


DATA = {"Content-Type": "application/octet-stream"}
OF_SHARED = {"image_id": lambda t: t.shared}
PARAMETERS: Mapping[str, str | Made] = {
    "image_id": lambda t: t.image,
    "member_id": lambda t: t.shared_with.project_id,
    "tag": "blue",
    "task_id": lambda t: t.task,
    "store_id": "file",
    "namespace": lambda t: t.namespace,
    "object_name": "disk",
    "property_name": "speed",
    "tag_name": "blue",
    "resource_type": "OS::Glance::Image",
}
OF_IMAGE = "/images/{image_id}"
METADEF_SCHEMAS = (
    *("namespace", "namespaces", "object", "objects", "property", "properties"),
    *("tag", "tags", "resource_type", "resource_types"),
)
OF_NAMESPACE = "/metadefs/namespaces/{namespace}"
NOTHING: Mapping[str, str | Made] = {}
A_TASK = {
    "type": "import",
    "input": {
        "import_from": "https://images.example.org/",
        "import_from_format": "raw",
        "image_properties": {"disk_format": "raw", "container_format": "bare"},
    },
}
"""Refused in the end: no hosts of the Internet are allowed."""
IN_NAMESPACE: Mapping[str, tuple[str, JsonObject]] = {
    "objects": ("object_name", {"name": "new"}),
    "properties": ("property_name", {"name": "new", "title": "New", "type": "string"}),
    "tags": ("tag_name", {"name": "new"}),
}
"""What a namespace holds: the name of one in paths, and a body for another one."""


def _of_namespace(may: frozenset[str], body: Any = None, path: Mapping[str, str | Made] = NOTHING) -> Example:
    return Example(may=may, sees=READER, body=body, path=path, rules=("get_metadef_namespace",))


def _of_namespaces() -> dict[str, Example]:
    examples = {
        f"GET {OF_NAMESPACE}": _of_namespace(READER),
        f"PUT {OF_NAMESPACE}": _of_namespace(ADMIN, {"namespace": "another"}),
        f"DELETE {OF_NAMESPACE}": _of_namespace(ADMIN),
        f"GET {OF_NAMESPACE}/resource_types": _of_namespace(READER),
        f"POST {OF_NAMESPACE}/resource_types": _of_namespace(ADMIN, {"name": "OS::Nova::Server"}),
        f"DELETE {OF_NAMESPACE}/resource_types/{{resource_type}}": _of_namespace(ADMIN),
        f"POST {OF_NAMESPACE}/tags/{{tag_name}}": _of_namespace(ADMIN, path={"tag_name": "red"}),
    }
    for kind, (parameter, body) in IN_NAMESPACE.items():
        one = f"{OF_NAMESPACE}/{kind}/{{{parameter}}}"
        examples |= {
            f"GET {OF_NAMESPACE}/{kind}": _of_namespace(READER),
            f"POST {OF_NAMESPACE}/{kind}": _of_namespace(ADMIN, {"tags": [body]} if kind == "tags" else body),
            f"DELETE {OF_NAMESPACE}/{kind}": _of_namespace(ADMIN),
            f"GET {one}": _of_namespace(READER),
            f"PUT {one}": _of_namespace(ADMIN, body),
            f"DELETE {one}": _of_namespace(ADMIN),
        }
    return examples


EXAMPLES: Mapping[str, Example | tuple[Example, ...]] = {
    f"PUT {OF_IMAGE}/file": Example(
        may=MEMBER,
        sees=READER,
        path={"image_id": lambda t: t.new()},
        content=b"\0" * 512,
        headers=DATA,
        real=True,
        rules=SEEN,
    ),
    f"GET {OF_IMAGE}/file": Example(may=MEMBER, sees=READER, rules=SEEN),
    "POST /images": Example(may=ANY_MEMBER, body={"name": "new", "disk_format": "raw", "container_format": "bare"}),
    "GET /images": Example(may=ANY_READER),
    f"GET {OF_IMAGE}": Example(may=READER, sees=READER, rules=SEEN),
    f"GET {OF_IMAGE}/tasks": Example(may=READER, sees=READER, rules=SEEN),
    f"DELETE {OF_IMAGE}": Example(may=MEMBER, sees=READER, path={"image_id": lambda t: t.new()}, real=True, rules=SEEN),
    f"POST {OF_IMAGE}/actions/deactivate": Example(may=MEMBER, sees=READER, rules=SEEN),
    f"POST {OF_IMAGE}/actions/reactivate": Example(
        may=MEMBER, sees=READER, path={"image_id": lambda t: t.deactivated}, rules=SEEN
    ),
    f"PATCH {OF_IMAGE}": Example(
        may=MEMBER,
        sees=READER,
        content=b'[{"op": "replace", "path": "/name", "value": "renamed"}]',
        headers=PATCH_TYPE,
        rules=SEEN,
    ),
    f"POST {OF_IMAGE}/members": Example(may=MEMBER, sees=READER, body={"member": str(uuid.uuid4())}, rules=SEEN),
    f"GET {OF_IMAGE}/members": Example(may=READER, sees=READER, path=OF_SHARED, rules=SEEN),
    f"GET {OF_IMAGE}/members/{{member_id}}": Example(may=READER, sees=READER, path=OF_SHARED, rules=SEEN),
    f"PUT {OF_IMAGE}/members/{{member_id}}": Example(
        may=ADMIN, sees=READER, path=OF_SHARED, body={"status": "accepted"}, rules=SEEN_MEMBER
    ),
    f"DELETE {OF_IMAGE}/members/{{member_id}}": Example(may=MEMBER, sees=READER, path=OF_SHARED, rules=SEEN_MEMBER),
    "GET /schemas/image": Example(may=ANYONE),
    "GET /schemas/images": Example(may=ANYONE),
    "GET /schemas/member": Example(may=ANYONE),
    "GET /schemas/members": Example(may=ANYONE),
    "GET /info/import": Example(may=ANYONE),
    "GET /info/stores": Example(may=ANYONE),
    "GET /info/stores/detail": Example(may=SERVICE),
    "GET /info/usage": Example(may=ANYONE),
    "GET /schemas/task": Example(may=ANYONE),
    "GET /schemas/tasks": Example(may=ANYONE),
    "GET /tasks": Example(may=ADMIN),
    "GET /tasks/{task_id}": Example(may=ADMIN),
    "POST /tasks": Example(may=ADMIN, body=A_TASK, answers=400),
    "DELETE /tasks/{task_id}": Example(may=ADMIN, answers=405),
    "GET /cache": Example(may=ADMIN, answers=404),
    "DELETE /cache": Example(may=ADMIN, answers=404),
    "PUT /cache/{image_id}": Example(may=ADMIN, answers=404),
    "DELETE /cache/{image_id}": Example(may=ADMIN, answers=404),
    "DELETE /stores/{store_id}/{image_id}": Example(
        may=ADMIN, sees=READER, path={"image_id": lambda t: t.staged}, answers=409, rules=SEEN, hidden="image_id"
    ),
    f"POST {OF_IMAGE}/locations": Example(
        may=MEMBER, sees=READER, body={"url": "https://images.example.org/"}, answers=409, rules=SEEN
    ),
    f"GET {OF_IMAGE}/locations": Example(may=ADMIN, sees=READER, rules=SEEN),
    f"PUT {OF_IMAGE}/stage": Example(
        may=MEMBER,
        sees=READER,
        path={"image_id": lambda t: t.new()},
        content=b"\0" * 512,
        headers=DATA,
        real=True,
        rules=SEEN,
    ),
    f"POST {OF_IMAGE}/import": Example(
        may=MEMBER,
        sees=READER,
        path={"image_id": lambda t: t.staged},
        body={"method": {"name": "glance-direct"}},
        rules=SEEN,
    ),
    **_of_namespaces(),
    "POST /metadefs/namespaces": Example(may=ADMIN, body={"namespace": "new"}),
    "GET /metadefs/namespaces": Example(may=ANY_READER),
    "GET /metadefs/resource_types": Example(may=ANY_READER),
    **{f"GET /schemas/metadefs/{name}": Example(may=ANYONE) for name in METADEF_SCHEMAS},
    f"PUT {OF_IMAGE}/tags/{{tag}}": Example(may=MEMBER, sees=READER, path={"tag": "red"}, rules=SEEN),
    f"DELETE {OF_IMAGE}/tags/{{tag}}": Example(may=MEMBER, sees=READER, rules=SEEN),
}
