"""All of the Image API: importing this module declares every operation on `IMAGE`."""

from __future__ import annotations

from cumulet.image import data, images, members, schemas, tags, update
from cumulet.image.service import IMAGE

__all__ = ["IMAGE", "data", "images", "members", "schemas", "tags", "update"]
