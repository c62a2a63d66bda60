"""How metadata definitions look to clients. Attributes that were never given are left out, as Glance does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulet.clock import iso_z
from cumulet.image.metadef_store import Content, Namespace

ROOT = "/v2/metadefs/namespaces"


def show_namespace(namespace: Namespace) -> dict[str, object]:
    shown: dict[str, object] = {
        "namespace": namespace.namespace,
        "display_name": namespace.display_name,
        "description": namespace.description,
        "visibility": namespace.visibility,
        "protected": namespace.protected,
        "owner": namespace.owner,
        "created_at": iso_z(namespace.created_at_us),
        "updated_at": iso_z(namespace.updated_at_us),
        "self": f"{ROOT}/{namespace.namespace}",
        "schema": "/v2/schemas/metadefs/namespace",
    }
    return {name: value for name, value in shown.items() if value is not None}


def show_object(namespace: Namespace, content: Content, prefix: str = "") -> dict[str, object]:
    """`prefix`: what comes before the names of its properties."""
    shown = {
        **content.value,
        **content.times(),
        "name": content.name,
        "self": f"{ROOT}/{namespace.namespace}/objects/{content.name}",
        "schema": "/v2/schemas/metadefs/object",
    }
    if prefix:
        if isinstance(held := shown.get("properties"), Mapping):
            shown["properties"] = {prefix + name: value for name, value in held.items()}
        if isinstance(required := shown.get("required"), list):
            shown["required"] = [f"{prefix}{name}" for name in required]
    return shown


def show_property(content: Content) -> dict[str, object]:
    return {"name": content.name, **content.value}


def show_properties(found: Sequence[Content], prefix: str = "") -> dict[str, object]:
    """Properties by their names."""
    return {prefix + content.name: content.value for content in found}


def show_tag(content: Content) -> dict[str, object]:
    return {"name": content.name, **content.times()}


def show_tags(found: Sequence[Content]) -> list[dict[str, object]]:
    """Several: by their names only."""
    return [{"name": content.name} for content in found]


def show_association(content: Content) -> dict[str, object]:
    return {"name": content.name, **content.value, **content.times()}
