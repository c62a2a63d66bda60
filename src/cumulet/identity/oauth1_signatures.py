"""Signatures of requests by OAuth 1.0a: read from the ``Authorization`` header, and compared with what keys would sign.

Source: RFC 5849, section 3. RSA is not offered: consumers have no keys here but their secrets.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

import msgspec

LIFE_SECONDS = 600
"""How far a request's time may be from ours, as upstream's."""
MOST_PARAMETERS = 32
LONGEST_NONCE = 255
PLAINTEXT = "PLAINTEXT"
_HASHES = {"HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256", "HMAC-SHA512": "sha512"}
METHODS = (*_HASHES, PLAINTEXT)


class Malformed(Exception):
    """Why a request is not accepted, before its signature is compared."""


class SignedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it was signed. `parameters`: those of the header, but for `realm` and the signature."""

    method: str
    url: str
    query: tuple[tuple[str, str], ...]
    parameters: dict[str, str]
    signature: str

    def get(self, name: str) -> str:
        """A parameter of the header; empty where it is not there."""
        return self.parameters.get(name, "")

    def __repr__(self) -> str:
        return f"SignedRequest(method={self.method!r})"  # What a log may hold of it.


def read(header: str | None, method: str, url: str, query: Iterable[tuple[str, str]]) -> SignedRequest:
    """The request with what its ``Authorization`` header says. Raises `Malformed` where that is not OAuth 1.0."""
    scheme, _, rest = (header or "").partition(" ")
    if scheme.lower() != "oauth":
        raise Malformed("The request has no Authorization header of OAuth 1.0.")
    found: dict[str, str] = {}
    for part in rest.split(",", MOST_PARAMETERS):
        name, equals, value = part.strip().partition("=")
        name = unquote(name)
        if not equals or len(value) < 2 or value[0] != '"' or value[-1] != '"':
            raise Malformed("The Authorization header is malformed.")
        if name in found:
            raise Malformed("A parameter is in the Authorization header twice.")
        found[name] = unquote(value[1:-1])
    found.pop("realm", None)
    signature = found.pop("oauth_signature", "")
    return SignedRequest(method=method, url=url, query=tuple(query), parameters=found, signature=signature)


def require_well_formed(request: SignedRequest, now_us: int) -> None:
    """Raises `Malformed` where a parameter is missing or wrong, or the time is over `LIFE_SECONDS` from ours."""
    needed = ("oauth_consumer_key", "oauth_signature_method", "oauth_timestamp", "oauth_nonce")
    if not request.signature or not all(request.get(name) for name in needed):
        raise Malformed("A parameter of OAuth 1.0 is missing.")
    if request.get("oauth_signature_method") not in METHODS:
        raise Malformed(f"The signature methods are {', '.join(METHODS)}.")
    if request.parameters.get("oauth_version", "1.0") != "1.0":
        raise Malformed("The version of OAuth must be 1.0.")
    if len(request.get("oauth_nonce")) > LONGEST_NONCE:
        raise Malformed("The nonce is too long.")
    stamp = request.get("oauth_timestamp")
    if len(stamp) != 10 or not (stamp.isascii() and stamp.isdecimal()):
        raise Malformed("The timestamp must be a number of seconds.")
    if abs(now_us / 1e6 - int(stamp)) > LIFE_SECONDS:
        raise Malformed(f"The timestamp differs from the present time by more than {LIFE_SECONDS} seconds.")


def is_signed(request: SignedRequest, consumer_secret: str, token_secret: str = "") -> bool:
    """Whether these secrets made the signature of a well-formed request."""
    key = f"{_escape(consumer_secret)}&{_escape(token_secret)}"
    method = request.get("oauth_signature_method")
    made = key if method == PLAINTEXT else _digest(request, key, _HASHES[method])
    return hmac.compare_digest(made.encode(), request.signature.encode("utf-8", "surrogatepass"))


def _digest(request: SignedRequest, key: str, algorithm: str) -> str:
    pairs = sorted((_escape(name), _escape(value)) for name, value in (*request.query, *request.parameters.items()))
    normalised = "&".join(f"{name}={value}" for name, value in pairs)
    text = "&".join((request.method.upper(), _escape(_base_url(request.url)), _escape(normalised)))
    return base64.b64encode(hmac.digest(key.encode(), text.encode(), algorithm)).decode()


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.lower()
    default = {"https": ":443", "http": ":80"}[parts.scheme]
    return f"{parts.scheme}://{host.removesuffix(default)}{parts.path}"


def _escape(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="-._~")


def nonce_digest(request: SignedRequest) -> str:
    """The digest by which a signed request is remembered: two requests with the same one are the same."""
    names = ("oauth_consumer_key", "oauth_token", "oauth_timestamp", "oauth_nonce")
    text = "\n".join(_escape(request.get(name)) for name in names)
    return hashlib.sha256(text.encode()).hexdigest()
