"""Key pairs: public keys that users put into their servers. The private half of a generated pair is shown once."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated

import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from cumulet.clock import iso_us
from cumulet.compute import made_keys
from cumulet.compute.links import next_links, page
from cumulet.compute.quotas import require_headroom
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.db.engine import Row, Select, Tx, metadata
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Call, Reply
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json, NonNegativeInteger, Query, Required, Since, Versions

key_pairs = sa.Table(
    "key_pairs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("type", sa.String(8), nullable=False),
    sa.Column("fingerprint", sa.String(255), nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("user_id", "name"),
)

_OWN = f"({ADMIN}) or user_id:%(user_id)s"
LIST = rule("os_compute_api:os-keypairs:index", _OWN)
SHOW = rule("os_compute_api:os-keypairs:show", _OWN)
CREATE = rule("os_compute_api:os-keypairs:create", _OWN)
DELETE = rule("os_compute_api:os-keypairs:delete", _OWN)


LONGEST_PUBLIC_KEY = 16_384
"""Characters. Each server that is made with the key has a copy."""


class CreateKeyPair(Body):
    name: Annotated[
        str,
        Versions(
            (
                "2.1",
                Annotated[
                    str, Json({"minLength": 1, "maxLength": 255, "format": "name", "pattern": "^[_ a-zA-Z0-9-]+$"})
                ],
            ),
            (
                "2.92",
                Annotated[
                    str, Json({"minLength": 1, "maxLength": 255, "format": "name", "pattern": "^[_@. a-zA-Z0-9-]+$"})
                ],
            ),
        ),
    ]
    type: Annotated[str, Json({"enum": ["ssh", "x509"]}), Since("2.2")] = "ssh"
    public_key: Annotated[
        str | None, Required(since="2.92"), Json({"type": "string", "maxLength": LONGEST_PUBLIC_KEY})
    ] = None
    user_id: Annotated[str | None, Json({"type": "string"}), Since("2.10")] = None


LONGEST_USER_ID = 64


class KeyPairsQuery(Query, closed_since="2.75"):
    user_id: Annotated[str | None, Since("2.10")] = None
    limit: Annotated[NonNegativeInteger | None, Since("2.35")] = None
    marker: Annotated[str | None, Since("2.35")] = None


class KeyPairQuery(Query, closed_since="2.75"):
    user_id: Annotated[str | None, Since("2.10")] = None


@COMPUTE.operation("GET", "/os-keypairs", rules=(), query=KeyPairsQuery)
def list_key_pairs(call: Call[None, None]) -> dict[str, object]:
    """List a user's key pairs; another user's for administrators (2.10)."""
    user_id = _user(call, LIST)
    paged = call.version.at_least("2.35")
    asked = page(call, since="2.35")
    conditions = [key_pairs.c.user_id == user_id]
    if asked.marker is not None:
        if call.tx.first(_one(user_id, asked.marker)) is None:
            raise BadRequest(f"Marker {asked.marker} could not be found.")
        conditions.append(key_pairs.c.name > asked.marker)
    rows = call.tx.all(sa.select(key_pairs).where(*conditions).order_by(key_pairs.c.name).limit(asked.limit))
    typed = ("type",) if call.version.at_least("2.2") else ()
    answer: dict[str, object] = {
        "keypairs": [
            {"keypair": {name: row._mapping[name] for name in ("name", "public_key", "fingerprint", *typed)}}
            for row in rows
        ]
    }
    # Nova links to a next page only where a limit was given.
    if (
        paged
        and "limit" in call.query
        and (following := next_links(call, "os-keypairs", asked, len(rows), rows[-1].name if rows else ""))
    ):
        answer["keypairs_links"] = following
    return answer


@COMPUTE.operation("GET", "/os-keypairs/{name}", rules=(), query=KeyPairQuery)
def show_key_pair(call: Call[None, None]) -> dict[str, object]:
    """Show a key pair."""
    user_id = _user(call, SHOW)
    row = _found(call.tx, user_id, call.path["name"])
    view = {
        "name": row.name,
        "public_key": row.public_key,
        "fingerprint": row.fingerprint,
        "user_id": row.user_id,
        "created_at": iso_us(row.created_at_us),
        "deleted": False,
        "deleted_at": None,
        "id": row.id,
        "updated_at": None,
    }
    if call.version.at_least("2.2"):
        view["type"] = row.type
    return {"keypair": view}


@COMPUTE.operation("POST", "/os-keypairs", rules=(), body=CreateKeyPair, body_key="keypair")
async def create_key_pair(call: Call[None, CreateKeyPair]) -> Reply:
    """Store a public key, or (up to 2.91) make a pair and show its private half this once."""
    body = call.body
    user_id = body.user_id or call.caller.user_id
    call.require(CREATE, {"user_id": user_id, "project_id": call.caller.project_id})
    if len(user_id) > LONGEST_USER_ID:
        raise BadRequest("user_id is too long to be a user's.")
    name = body.name.strip()
    public_key, private_key = body.public_key, None
    if public_key is None:
        # Making a key takes long: not for one that will not be kept, and not while anybody waits for the database.
        await call.cloud.db.read_async(lambda tx: _require_place(tx, user_id, name))
        make = made_keys.ssh if body.type == "ssh" else made_keys.x509_certificate
        public_key, private_key = await made_keys.made(lambda: make(user_id, call.now_us))
    values = {
        "user_id": user_id,
        "name": name,
        "type": body.type,
        "public_key": public_key,
        "created_at_us": call.now_us,
        "fingerprint": ssh_fingerprint(public_key) if body.type == "ssh" else x509_fingerprint(public_key),
    }

    def keep(tx: Tx) -> None:
        _require_place(tx, user_id, name)
        tx.execute(sa.insert(key_pairs).values(values))

    await call.cloud.db.write_async(keep)
    view = {field: values[field] for field in ("name", "public_key", "fingerprint", "user_id")}
    if private_key is not None:
        view["private_key"] = private_key
    if call.version.at_least("2.2"):
        view["type"] = body.type
    return Reply(body={"keypair": view}, status=201 if call.version.at_least("2.2") else 200)


@COMPUTE.operation("DELETE", "/os-keypairs/{name}", rules=(), query=KeyPairQuery)
def delete_key_pair(call: Call[None, None]) -> Reply:
    """Delete a key pair. Servers made with it keep the public key."""
    user_id = _user(call, DELETE)
    _found(call.tx, user_id, call.path["name"])
    call.tx.execute(sa.delete(key_pairs).where(key_pairs.c.user_id == user_id, key_pairs.c.name == call.path["name"]))
    return Reply(status=204 if call.version.at_least("2.2") else 202)


def public_key_of(tx: Tx, user_id: str, name: str) -> tuple[str, str]:
    """The public key a server is created with, and its type."""
    row = tx.first(_one(user_id, name))
    if row is None:
        raise BadRequest("Invalid key_name provided.")
    return str(row.public_key), str(row.type)


def ssh_fingerprint(public_key: str) -> str:
    """MD5 of the key's bytes in hex pairs, as Nova shows it: a name for the key, not a protection of it."""
    try:
        if not is_one_line(public_key.rstrip("\r\n")):
            raise ValueError("more than one line would be more than one key for whoever writes it to a file")
        serialization.load_ssh_public_key(public_key.encode())
        blob = base64.b64decode(public_key.split(" ")[1], validate=True)
    except (ValueError, IndexError, binascii.Error, UnsupportedAlgorithm, TypeError):
        raise BadRequest("Keypair data is invalid: failed to generate fingerprint") from None
    return _hex_pairs(hashlib.md5(blob, usedforsecurity=False).hexdigest())


def x509_fingerprint(certificate: str) -> str:
    try:
        if certificate.count("-----BEGIN ") != 1 or not certificate.strip().endswith("-----END CERTIFICATE-----"):
            raise ValueError("one certificate, and nothing after it")
        digest = x509.load_pem_x509_certificate(certificate.encode()).fingerprint(hashes.SHA1())  # noqa: S303
    except ValueError:
        raise BadRequest("Keypair data is invalid: failed to generate X509 fingerprint.") from None
    return _hex_pairs(digest.hex())


def _hex_pairs(digest: str) -> str:
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _one(user_id: str, name: str) -> Select:
    return sa.select(key_pairs).where(key_pairs.c.user_id == user_id, key_pairs.c.name == name)


def _found(tx: Tx, user_id: str, name: str) -> Row:
    row = tx.first(_one(user_id, name))
    if row is None:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
    return row


def _user(call: Call[None, None], name: str) -> str:
    """Whose key pairs: the caller's own, or those the caller passes rule `name` for."""
    asked = call.query.get("user_id") if call.version.at_least("2.10") else None
    user_id = asked or call.caller.user_id
    call.require(name, {"user_id": user_id, "project_id": call.caller.project_id})
    return user_id


def _require_place(tx: Tx, user_id: str, name: str) -> None:
    used = tx.scalar(sa.select(sa.func.count()).select_from(key_pairs).where(key_pairs.c.user_id == user_id))
    require_headroom(tx, "key_pairs", used + 1, words="Quota exceeded, too many key pairs.")
    if tx.first(_one(user_id, name)) is not None:
        raise Conflict(f"Key pair '{name}' already exists.")
