"""Requests signed by OAuth 1.0a as RFC 5849 says, written apart from what is tested."""

from __future__ import annotations

import base64
import hmac
from urllib.parse import parse_qs, quote


def _quoted(text: str) -> str:
    return quote(text, safe="-._~")


def authorization(
    url: str,
    seconds: float,
    nonce: str,
    consumer: dict[str, str],
    token: dict[str, str] | None = None,
    *,
    method: str = "HMAC-SHA1",
    signed_for: str = "",
    without: str = "",
    **more: str,
) -> dict[str, str]:
    """The header of a POST. consumer, token: id and secret. signed_for: another URL than the request is sent to.
    without: a parameter that is left out. A `signature` that is given replaces the right one."""
    own = more.pop("signature", None)
    params = {
        "oauth_consumer_key": consumer["id"],
        "oauth_signature_method": method,
        "oauth_timestamp": str(int(seconds)),
        "oauth_nonce": nonce,
        "oauth_version": "1.0",
        **({"oauth_token": token["id"]} if token else {}),
        **{f"oauth_{name}": value for name, value in more.items()},
    }
    params = {name: value for name, value in params.items() if name != f"oauth_{without}"}
    base, _, query = (signed_for or url).partition("?")
    pairs = [(name, values[0]) for name, values in parse_qs(query).items()] + list(params.items())
    normalised = "&".join(f"{_quoted(a)}={_quoted(b)}" for a, b in sorted(pairs))
    key = f"{_quoted(consumer['secret'])}&{_quoted(token['secret'] if token else '')}"
    if method.startswith("HMAC-"):
        text = f"POST&{_quoted(base)}&{_quoted(normalised)}"
        made = base64.b64encode(hmac.digest(key.encode(), text.encode(), method.removeprefix("HMAC-"))).decode()
    else:
        made = key
    if without != "signature":
        params["oauth_signature"] = made if own is None else own
    parts = ", ".join(f'{name}="{_quoted(value)}"' for name, value in params.items())
    return {"Authorization": f'OAuth realm="", {parts}'}


def read_token(text: str) -> dict[str, str]:
    """Id and secret of the token in an answer."""
    found = parse_qs(text, strict_parsing=True)
    return {"id": found["oauth_token"][0], "secret": found["oauth_token_secret"][0]}
