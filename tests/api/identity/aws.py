"""Requests signed as AWS's documents say, written apart from what is tested."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cumulet.clock import iso_us
from cumulet.testing import JsonObject


@dataclass(frozen=True)
class Signer:
    now_us: int
    access: str
    secret: str

    def version_2(self, *, without: Collection[str] = (), signed_at: str | None = None, **changes: Any) -> JsonObject:
        """`signed_at`: when it says that it was signed; by default now."""
        params = {
            "AWSAccessKeyId": self.access,
            "Action": "DescribeInstances",
            "SignatureMethod": "HmacSHA256",
            "SignatureVersion": "2",
            "Timestamp": str(iso_us(self.now_us))[:19] + "Z" if signed_at is None else signed_at,
        }
        params = {name: value for name, value in params.items() if name not in without}
        query = "&".join(f"{k}={quote(v, safe='-_.~')}" for k, v in sorted(params.items()))
        text = f"GET\nexample.com\n/services/Cloud\n{query}"
        signature = base64.b64encode(hmac.digest(self.secret.encode(), text.encode(), "sha256")).decode()
        return {
            "access": self.access,
            "signature": signature,
            "host": "example.com",
            "verb": "GET",
            "path": "/services/Cloud",
            "params": params,
            **changes,
        }

    def _stamp(self) -> str:
        return str(iso_us(self.now_us))[:19].replace("-", "").replace(":", "") + "Z"

    def _seal(self, text: str, *scope: str) -> str:
        key = b"AWS4" + self.secret.encode()
        for part in scope:
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    def version_4(self, *, signed: str = "GET", **changes: Any) -> JsonObject:
        stamp, body_hash = self._stamp(), hashlib.sha256(b"").hexdigest()
        scope = (stamp[:8], "r", "ec2", "aws4_request")
        headers = {"Host": "example.com:8773", "X-Amz-Date": stamp}
        query = "" if signed == "POST" else "Action=x"
        canonical = f"{signed}\n/\n{query}\nhost:example.com:8773\nx-amz-date:{stamp}\n\nhost;x-amz-date\n{body_hash}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = self._seal(f"AWS4-HMAC-SHA256\n{stamp}\n{'/'.join(scope)}\n{digest}", *scope)
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access}/{'/'.join(scope)},"
            f"SignedHeaders=host;x-amz-date,Signature={signature}"
        )
        return {
            "access": self.access,
            "signature": signature,
            "host": "example.com:8773",
            "verb": signed,
            "path": "/",
            "params": {"Action": "x"},
            "headers": headers,
            "body_hash": body_hash,
            **changes,
        }

    def s3(self, **changes: Any) -> JsonObject:
        stamp = self._stamp()
        scope = (stamp[:8], "r", "s3", "aws4_request")
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{'/'.join(scope)}\n{'0' * 64}"
        token = base64.urlsafe_b64encode(text.encode()).decode()
        return {"access": self.access, "token": token, "signature": self._seal(text, *scope), **changes}
