"""Image's tables and records, and what compute asks of them. Files are in `files.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Row, Tx, metadata
from cumulet.db.partial_index import index_where
from cumulet.errors import BadRequest
from cumulet.image.inspection import is_bootable
from cumulet.web.operation import Caller

images = sa.Table(
    "images",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255), index=True),
    sa.Column("owner", sa.String(255), index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("visibility", sa.String(16), nullable=False, index=True),
    sa.Column("disk_format", sa.String(16)),
    sa.Column("container_format", sa.String(16)),
    sa.Column("min_disk", sa.BigInteger, nullable=False),
    sa.Column("min_ram", sa.BigInteger, nullable=False),
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("os_hidden", sa.Boolean, nullable=False),
    sa.Column("size", sa.BigInteger),
    sa.Column("virtual_size", sa.BigInteger),
    sa.Column("checksum", sa.String(32)),
    sa.Column("os_hash_value", sa.String(128)),
    # The upload that may finish this image; a later or dead one finds another value and gives up.
    sa.Column("upload_id", sa.String(36)),
    # Bytes that this upload may still bring, or has brought: part of its project's quota until it ends.
    sa.Column("upload_bytes", sa.BigInteger),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    # Rows stay for a while when an image is deleted, and while a server refers to it (`compute.history`): until then
    # its id is not given out again, or somebody could slip another image under it.
    sa.Column("deleted_at_us", sa.BigInteger),
    # The task that imports its data, until it ends; and whether the last one failed, if there was one.
    sa.Column("import_task_id", sa.String(36)),
    sa.Column("import_failed", sa.Boolean),
)
# What reads living images must not go through the deleted ones, of which anybody can make any number.
index_where(images, "ix_images_living", "owner", where="deleted_at_us IS NULL")
index_where(images, "ix_images_living_visibility", "visibility", where="deleted_at_us IS NULL")
index_where(images, "ix_images_deleted", "deleted_at_us", where="deleted_at_us IS NOT NULL")

image_properties = sa.Table(
    "image_properties",
    metadata,
    sa.Column("image_id", sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

image_tags = sa.Table(
    "image_tags",
    metadata,
    sa.Column("image_id", sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("value", sa.String(255), primary_key=True),
)

image_members = sa.Table(
    "image_members",
    metadata,
    sa.Column("image_id", sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("member_id", sa.String(255), primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Index("ix_image_members_member_id", "member_id"),
)

HASH_ALGORITHM = "sha512"
STORE = "file"
"""The id of the store that data is in: there is one."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image. Sizes in bytes, `min_disk` in GiB, `min_ram` in MiB."""

    id: str
    name: str | None
    owner: str | None
    status: str
    visibility: str
    disk_format: str | None
    container_format: str | None
    min_disk: int
    min_ram: int
    protected: bool
    os_hidden: bool
    size: int | None = None
    virtual_size: int | None = None
    checksum: str | None = None
    os_hash_value: str | None = None
    upload_id: str | None = None
    upload_bytes: int | None = None
    import_task_id: str | None = None
    import_failed: bool | None = None
    created_at_us: int
    updated_at_us: int
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)
    tags: tuple[str, ...] = ()


class DataOf(NamedTuple):
    """What an image has of data: `size` in bytes once it has it, `upload_id` while it comes."""

    id: str
    status: str
    size: int | None
    upload_id: str | None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A project an image is shared with."""

    image_id: str
    member_id: str
    status: str
    created_at_us: int
    updated_at_us: int


class BootImage(msgspec.Struct, frozen=True, kw_only=True):
    """What compute needs of an image. `path` is relative to the image store; hosts check `sha512` first."""

    id: str
    disk_format: str
    size_bytes: int
    virtual_size_bytes: int
    min_disk_gib: int
    min_ram_mib: int
    sha512: str
    path: str
    properties: Mapping[str, str]
    status: str


_COLUMNS = [column for column in images.c if column.name != "deleted_at_us"]
_LIVE = sa.select(*_COLUMNS).where(images.c.id == sa.bindparam("of_id"), images.c.deleted_at_us.is_(None))
_DATA_OF_ALL = sa.select(images.c.id, images.c.status, images.c.size, images.c.upload_id).where(
    images.c.deleted_at_us.is_(None)
)
_IDS: sa.BindParameter[Any] = sa.bindparam("of_ids", expanding=True)
_PROPERTIES = sa.select(image_properties).where(image_properties.c.image_id.in_(_IDS))
_TAGS = sa.select(image_tags).where(image_tags.c.image_id.in_(_IDS)).order_by(image_tags.c.value)
_OWN_FIELDS = tuple(column.name for column in _COLUMNS)
_OF_DATA = frozenset(
    {"status", "size", "virtual_size", "checksum", "os_hash_value", "upload_id", "upload_bytes"}
    | {"import_task_id", "import_failed"}
)


def visible_to(caller: Caller, *, member_status: str | None = None) -> sa.ColumnElement[bool]:
    """The condition for images the caller may know of. member_status: only these of the shared ones."""
    if caller.is_admin:
        return sa.true()
    conditions: list[sa.ColumnElement[bool]] = [images.c.visibility.in_(("public", "community"))]
    if caller.project_id is not None:
        shares = sa.select(image_members.c.image_id).where(image_members.c.member_id == caller.project_id)
        if member_status is not None:
            shares = shares.where(image_members.c.status == member_status)
        conditions.append(images.c.owner == caller.project_id)
        conditions.append(sa.and_(images.c.visibility == "shared", images.c.id.in_(shares)))
    return sa.or_(*conditions)


def has_property(name: str, value: str) -> sa.ColumnElement[bool]:
    """The condition for images of which a property has this value."""
    of_image = (image_properties.c.image_id == images.c.id, image_properties.c.name == name)
    return sa.exists().where(*of_image, image_properties.c.value == value)


def load(
    tx: Tx, *conditions: sa.ColumnElement[bool], order: Iterable[Any] = (), limit: int | None = None
) -> list[Image]:
    """Live images, with their properties and tags."""
    query = sa.select(*_COLUMNS).where(images.c.deleted_at_us.is_(None), *conditions).order_by(*order)
    return _whole(tx, tx.all(query if limit is None else query.limit(limit)))


def _whole(tx: Tx, rows: Sequence[Row]) -> list[Image]:
    ids = [row.id for row in rows]
    properties: dict[str, dict[str, str]] = {image_id: {} for image_id in ids}
    tags: dict[str, list[str]] = {image_id: [] for image_id in ids}
    if ids:
        for row in tx.all(_PROPERTIES, {"of_ids": ids}):
            properties[row.image_id][row.name] = row.value
        for row in tx.all(_TAGS, {"of_ids": ids}):
            tags[row.image_id].append(row.value)
    return [Image(**row._mapping, properties=properties[row.id], tags=tuple(tags[row.id])) for row in rows]


def find(tx: Tx, image_id: str) -> Image | None:
    found = _whole(tx, tx.all(_LIVE, {"of_id": image_id}))
    return found[0] if found else None


def find_visible(tx: Tx, caller: Caller, image_id: str) -> Image | None:
    found = find(tx, image_id)
    # The list's condition decides; these two need not ask it.
    if found is None or caller.is_admin or found.visibility in ("public", "community"):
        return found
    return found if load(tx, images.c.id == image_id, visible_to(caller)) else None


def id_was_used(tx: Tx, image_id: str) -> bool:
    """Whether an image, living or deleted, has or had this id."""
    return tx.first(sa.select(images.c.id).where(images.c.id == image_id)) is not None


def add(tx: Tx, image: Image) -> None:
    tx.execute(sa.insert(images).values({name: getattr(image, name) for name in _OWN_FIELDS}))
    _write_properties(tx, image)
    _write_tags(tx, image)


def save(tx: Tx, before: Image, after: Image) -> None:
    """Write what a client may change (not status and data). `before` was read in the same transaction."""
    values = {name: getattr(after, name) for name in _OWN_FIELDS if name not in _OF_DATA}
    tx.execute(sa.update(images).where(images.c.id == before.id).values(values))
    if before.properties != after.properties:
        tx.execute(sa.delete(image_properties).where(image_properties.c.image_id == before.id))
        _write_properties(tx, after)
    if before.tags != after.tags:
        tx.execute(sa.delete(image_tags).where(image_tags.c.image_id == before.id))
        _write_tags(tx, after)


def _write_properties(tx: Tx, image: Image) -> None:
    if image.properties:
        rows = [{"image_id": image.id, "name": name, "value": value} for name, value in image.properties.items()]
        tx.execute(sa.insert(image_properties), rows)


def _write_tags(tx: Tx, image: Image) -> None:
    if image.tags:
        tx.execute(sa.insert(image_tags), [{"image_id": image.id, "value": tag} for tag in dict.fromkeys(image.tags)])


def change_status(tx: Tx, image_id: str, *, expected: str, to: str, now_us: int) -> bool:
    """Compare-and-swap of the status. False: somebody else was first."""
    where = (images.c.id == image_id, images.c.status == expected, images.c.deleted_at_us.is_(None))
    return tx.changed(sa.update(images).where(*where).values(status=to, updated_at_us=now_us)) == 1


def begin_upload(
    tx: Tx,
    image_id: str,
    upload_id: str,
    upload_bytes: int,
    now_us: int,
    *,
    expected: str = "queued",
    to: str = "saving",
) -> bool:
    """From one status to another, for this upload only. False: the image is not as expected."""
    where = (images.c.id == image_id, images.c.status == expected, images.c.deleted_at_us.is_(None))
    taken = {"status": to, "upload_id": upload_id, "upload_bytes": upload_bytes, "updated_at_us": now_us}
    return tx.changed(sa.update(images).where(*where).values(taken)) == 1


def extend_upload(tx: Tx, image_id: str, upload_id: str, upload_bytes: int) -> bool:
    """The upload goes on, up to so many bytes. False: the image is no longer its own."""
    where = (images.c.id == image_id, images.c.upload_id == upload_id)
    values = {"upload_bytes": upload_bytes}
    return tx.changed(sa.update(images).where(*where, images.c.deleted_at_us.is_(None)).values(values)) == 1


def end_upload(tx: Tx, image_id: str, upload_id: str, now_us: int, *, status: str, **data: Any) -> bool:
    """Set `status` and what describes the data, for the upload that has the image. False: it has lost the image."""
    where = (images.c.id == image_id, images.c.upload_id == upload_id)
    values = {"status": status, "upload_id": None, "upload_bytes": None, "updated_at_us": now_us, **data}
    return tx.changed(sa.update(images).where(*where, images.c.deleted_at_us.is_(None)).values(values)) == 1


def data_of_all(tx: Tx) -> list[DataOf]:
    """What all images have of data."""
    return [DataOf(*row) for row in tx.all(_DATA_OF_ALL, {})]


def delete(tx: Tx, image_id: str, now_us: int) -> bool:
    """Delete the image but keep its id. False: it was deleted already, or is protected: then it stays, whoever asks."""
    where = (images.c.id == image_id, images.c.deleted_at_us.is_(None), images.c.protected.is_(False))
    gone = {"status": "deleted", "deleted_at_us": now_us, "updated_at_us": now_us}
    gone |= {"upload_id": None, "upload_bytes": None, "name": None}  # Who looks for a name meets no deleted image.
    if tx.changed(sa.update(images).where(*where).values(gone)) == 0:
        return False
    for table in (image_properties, image_tags, image_members):
        tx.execute(sa.delete(table).where(table.c.image_id == image_id))
    return True


def stored_bytes(tx: Tx, owner: str | None) -> int:
    """What a project's images take up in the store, with what uploads under way may bring."""
    total = sa.select(sa.func.coalesce(sa.func.sum(sa.func.coalesce(images.c.size, images.c.upload_bytes, 0)), 0))
    return int(tx.scalar(total.where(images.c.owner == owner, images.c.deleted_at_us.is_(None))))


def count_of(tx: Tx, owner: str | None) -> int:
    """How many images a project has, with data or without."""
    number = sa.select(sa.func.count()).select_from(images)
    return int(tx.scalar(number.where(images.c.owner == owner, images.c.deleted_at_us.is_(None))))


# -- members


def members(tx: Tx, image: Image, caller: Caller) -> list[Member]:
    """An image's members: all of them for its owner and admins, for a member only itself."""
    query = sa.select(image_members).where(image_members.c.image_id == image.id).order_by(image_members.c.created_at_us)
    if not caller.is_admin and caller.project_id != image.owner:
        query = query.where(image_members.c.member_id == caller.project_id)
    return [Member(**row._mapping) for row in tx.all(query)]


def add_member(tx: Tx, member: Member) -> None:
    values = msgspec.structs.asdict(member)
    tx.execute(sa.insert(image_members).values(values))


def set_member_status(tx: Tx, member: Member, status: str, now_us: int) -> None:
    where = (image_members.c.image_id == member.image_id, image_members.c.member_id == member.member_id)
    tx.execute(sa.update(image_members).where(*where).values(status=status, updated_at_us=now_us))


def remove_member(tx: Tx, member: Member) -> None:
    where = (image_members.c.image_id == member.image_id, image_members.c.member_id == member.member_id)
    tx.execute(sa.delete(image_members).where(*where))


# -- for compute

_DATA = sa.select(
    images.c.id, images.c.status, images.c.disk_format, images.c.size, images.c.virtual_size, images.c.os_hash_value
).where(images.c.deleted_at_us.is_(None), images.c.id == sa.bindparam("of_id"))


def data_of(tx: Tx, image_id: str) -> Any:
    """What a host needs to know of a living image's data, or None."""
    return tx.first(_DATA, {"of_id": image_id})


def boot_image(tx: Tx, caller: Caller, image_id: str) -> BootImage:
    """The image a server is to be made from; 400 where the caller cannot see it or it is not active, as in Nova."""
    image = find_visible(tx, caller, image_id)
    if image is None:
        raise BadRequest("Can not find requested image", reason="IMAGE_NOT_FOUND")
    if image.status != "active":
        raise BadRequest(f"Image {image_id} is not active.", reason="IMAGE_NOT_ACTIVE")
    if not is_bootable(image.disk_format, image.container_format):
        raise BadRequest(
            f"Image {image_id} is unacceptable: no server can be made from the disk format {image.disk_format} in a "
            f"container of the format {image.container_format}.",
            reason="IMAGE_FORMAT",
        )
    # The statement that makes an image active writes all of these.
    assert image.disk_format is not None
    assert image.os_hash_value is not None
    assert image.size is not None
    assert image.virtual_size is not None
    return BootImage(
        id=image.id,
        disk_format=image.disk_format,
        size_bytes=image.size,
        virtual_size_bytes=image.virtual_size,
        min_disk_gib=image.min_disk,
        min_ram_mib=image.min_ram,
        sha512=image.os_hash_value,
        path=image.id,
        properties=dict(image.properties),
        status=image.status,
    )
