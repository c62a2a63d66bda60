"""AWS signatures of requests, as EC2 and S3 clients make them (versions 2 and 4), compared with what a key would sign.

Source: AWS General Reference, "Signature Version 2 signing process", "Create a signed AWS API request".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from cumulet.clock import us_of

LIFE_SECONDS = 15 * 60
MOST_SIGNED_HEADERS = 100
"""Of one request, each named once: a header's value goes into what is signed for each time that it is named."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request that somebody signed, as a service hands it on."""

    verb: str
    host: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    """By their names in lower case."""
    body_hash: str
    signature: str


class Unsigned(Exception):
    """Why a request counts as not signed."""


def read(content: Mapping[str, object]) -> Request:
    """The request that `content` describes. Raises `Unsigned` where it describes none."""

    def text(name: str) -> str:
        value = content.get(name, "")
        if not isinstance(value, str):
            raise Unsigned(f"{name} is no text")
        return value

    def texts(name: str) -> dict[str, str]:
        value = content.get(name) or {}
        if not isinstance(value, dict):
            raise Unsigned(f"{name} is no object")
        return {str(key): str(part) for key, part in value.items()}

    headers: dict[str, str] = {}
    for name, value in texts("headers").items():
        headers.setdefault(name.lower(), value)
    return Request(
        verb=text("verb"),
        host=text("host"),
        path=text("path"),
        params=texts("params"),
        headers=headers,
        body_hash=text("body_hash"),
        signature=text("signature"),
    )


def require_signed(request: Request, secret: str, now_us: int) -> None:
    """Raises `Unsigned` unless the request is signed with `secret`, at most `LIFE_SECONDS` from now."""
    if not request.signature:
        raise Unsigned("EC2 signature not supplied.")
    hosts = [request.host]
    if ":" in request.host:  # some clients leave the port out of what they sign
        hosts.append(request.host.rpartition(":")[0])
    made = (signature_of(msgspec.structs.replace(request, host=host), secret.encode()) for host in hosts)
    if not any(hmac.compare_digest(one.encode(), request.signature.encode()) for one in made):
        raise Unsigned("Invalid EC2 signature.")
    # The time is read only where the signature covers it: anybody may add a header or parameter that is not signed.
    stamp = request.params.get("Timestamp") if _version(request) == "2" else _date(request)
    if not stamp:
        raise Unsigned("The request does not say when it was signed.")
    require_recent(stamp, now_us)


def require_recent(stamp: str, now_us: int) -> None:
    if abs(now_us / 1e6 - _seconds(stamp)) > LIFE_SECONDS:
        raise Unsigned("Credential is expired")


def _seconds(stamp: str) -> float:
    try:
        return us_of(stamp) / 1e6
    except ValueError:
        raise Unsigned("Credential timestamp is invalid") from None


def _date(request: Request) -> str:
    return _header(request, "x-amz-date") or request.params.get("X-Amz-Date", "")


def _header(request: Request, name: str) -> str:
    return request.headers.get(name, "")


def _version(request: Request) -> str | None:
    """The version that the request names. Signatures of version 2 do, later ones do not."""
    return request.params.get("SignatureVersion")


def signature_of(request: Request, secret: bytes) -> str:
    version = _version(request)
    if version == "2":
        return _version_2(request, secret)
    if version is None and "AWS4-HMAC-SHA256" in (
        _header(request, "authorization").partition(" ")[0],
        request.params.get("X-Amz-Algorithm"),
    ):
        return _version_4(request, secret)
    raise Unsigned("Only signatures of versions 2 and 4 are accepted.")


def _query(params: Mapping[str, str]) -> str:
    return "&".join(f"{quote(key, safe='-_.~')}={quote(params[key], safe='-_.~')}" for key in sorted(params))


def _version_2(request: Request, secret: bytes) -> str:
    params = {**request.params, "SignatureMethod": "HmacSHA256"}
    text = "\n".join((request.verb, request.host, request.path, _query(params)))
    return base64.b64encode(hmac.digest(secret, text.encode(), hashlib.sha256)).decode()


def _version_4(request: Request, secret: bytes) -> str:
    credential = _parameter(request, "Credential").split("/")
    if len(credential) != 5:
        raise Unsigned("Invalid EC2 signature.")
    _, day, region, service, end = credential
    date = _date(request)
    if not date.startswith(day):
        raise Unsigned("Request date mismatch error")
    canonical = _canonical(request)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", date, "/".join((day, region, service, end)), digest))
    key = b"AWS4" + secret
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _canonical(request: Request) -> str:
    signed = _parameter(request, "SignedHeaders")
    names = signed.split(";")
    if len(names) > MOST_SIGNED_HEADERS or len({*names}) < len(names):
        raise Unsigned("Invalid EC2 signature.")
    lines = []
    for name in names:
        value = request.host if name == "host" and not _header(request, name) else _header(request, name)
        lines.append(f"{name}:{' '.join(value.split())}")
    query = "" if request.verb.upper() == "POST" else _query(request.params)
    return "\n".join((request.verb.upper(), request.path, query, *lines, "", signed, request.body_hash))


def _parameter(request: Request, name: str) -> str:
    """Of the Authorization header, or of the query."""
    header = _header(request, "authorization")
    if header:
        return header.partition(f"{name}=")[2].partition(",")[0].strip()
    return request.params.get(f"X-Amz-{name}", "")
