"""The one store, the ways of import, and a project's usage. There is no cache in front of the store."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.errors import BadRequest, NotFound
from cumulet.image import store
from cumulet.image.files import BLOCK_BYTES
from cumulet.image.service import ADMIN, IMAGE, SERVICE_API
from cumulet.image.store import STORE, images
from cumulet.settings import Settings
from cumulet.web.operation import Call, Headers, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Empty

MIB = 1 << 20
STORE_HEADER = "x-image-meta-store"

STORES_DETAIL = rule("stores_info_detail", f"{ADMIN} or {SERVICE_API}", description="Show how stores are set up.")
CACHE_LIST = rule("cache_list", ADMIN, description="List cached images.")
CACHE_IMAGE = rule("cache_image", ADMIN, description="Have an image cached.")
CACHE_DELETE = rule("cache_delete", ADMIN, description="Remove images from the cache.")


def import_methods(settings: Settings) -> list[str]:
    """The ways of import there are."""
    return ["glance-direct", *(["web-download"] if settings.web_download_hosts else []), "copy-image"]


def of_new_images(settings: Settings) -> dict[str, str]:
    """Headers that tell who created an image by which ways, and to which store, its data can come."""
    return {
        "OpenStack-image-import-methods": ",".join(import_methods(settings)),
        "OpenStack-image-store-ids": STORE,
    }


def store_in_header(headers: Headers) -> str | None:
    """The store that a request names in a header. 400 for one that is not there."""
    asked = headers.get(STORE_HEADER)
    if asked not in (None, STORE):
        raise BadRequest(f"Invalid value of {STORE_HEADER}: there is no such store.")
    return asked


@IMAGE.operation("GET", "/info/import", rules=())
def show_import_methods(call: Call[None, None]) -> dict[str, object]:
    """List the ways of import."""
    methods = import_methods(call.cloud.settings)
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": methods}}


@IMAGE.operation("GET", "/info/stores", rules=())
def list_stores(_call: Call[None, None]) -> dict[str, object]:
    """List the stores: there is one."""
    return {"stores": [{"id": STORE, "default": "true"}]}


@IMAGE.operation("GET", "/info/stores/detail", rules=(Rule(STORES_DETAIL),))
def list_stores_in_detail(_call: Call[None, None]) -> dict[str, object]:
    """List the stores with their properties."""
    properties = {"chunk_size": BLOCK_BYTES, "thin_provisioning": False}
    return {"stores": [{"id": STORE, "default": "true", "type": "file", "weight": 0, "properties": properties}]}


@IMAGE.operation("GET", "/info/usage", rules=())
def show_usage(call: Call[None, None]) -> dict[str, object]:
    """Show what the caller's project uses of its limits: in MiB, and numbers of images."""
    settings, owner = call.cloud.settings, call.caller.project_id
    room = settings.image_project_quota_gib * 1024
    mine = (images.c.owner == owner, images.c.deleted_at_us.is_(None))
    staged = sa.select(sa.func.coalesce(sa.func.sum(images.c.upload_bytes), 0), sa.func.count()).where(
        *mine, images.c.status.in_(("uploading", "importing"))
    )
    ((staged_bytes, coming),) = call.tx.all(staged)
    used = {
        "image_size_total": (store.stored_bytes(call.tx, owner) // MIB, room),
        "image_stage_total": (int(staged_bytes) // MIB, room),
        "image_count_total": (store.count_of(call.tx, owner), settings.images_per_project),
        "image_count_uploading": (int(coming), settings.images_per_project),
    }
    return {"usage": {name: {"usage": usage, "limit": limit} for name, (usage, limit) in used.items()}}


def _no_cache() -> NotFound:
    return NotFound("Caching via API is not supported at this site.")


@IMAGE.operation("GET", "/cache", rules=(Rule(CACHE_LIST),))
def list_cached_images(_call: Call[None, None]) -> None:
    """Refused: there is no cache."""
    raise _no_cache()


@IMAGE.operation("DELETE", "/cache", rules=(Rule(CACHE_DELETE),), success=204)
def clear_cache(_call: Call[None, None]) -> None:
    """Refused: there is no cache."""
    raise _no_cache()


@IMAGE.operation("PUT", "/cache/{image_id}", rules=(Rule(CACHE_IMAGE),), body=Empty, success=202)
def cache_image(_call: Call[None, Empty]) -> None:
    """Refused: there is no cache."""
    raise _no_cache()


@IMAGE.operation("DELETE", "/cache/{image_id}", rules=(Rule(CACHE_DELETE),), success=204)
def delete_cached_image(_call: Call[None, None]) -> None:
    """Refused: there is no cache."""
    raise _no_cache()
