"""What a machine that joins makes of what answers it: each wrong answer is a sentence of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from cumulet.agent import joining
from cumulet.agent.images import ImagesOfControlPlane
from cumulet.agent.joining import Unreachable
from cumulet.host.driver import DriverError
from cumulet.host.joining import Admitted, Refused
from tests.fleet.joined import membership

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url="https://cloud.test", transport=httpx.MockTransport(answer))


def refusing(verify_code: int) -> Answer:
    """A connection whose certificate is refused here, for OpenSSL's reason."""

    def answer(request: httpx.Request) -> httpx.Response:
        cause = ssl.SSLCertVerificationError("certificate verify failed")
        cause.verify_code = verify_code
        raise httpx.ConnectError("certificate verify failed") from cause

    return answer


@pytest.mark.parametrize(
    ("verify_code", "code", "words"),
    [
        (9, "WRONG_CLOCK", "certificate is not good yet"),
        (10, "WRONG_CLOCK", "certificate is over"),
        (19, "WRONG_CA", "is not this host's cloud"),
    ],
)
def test_a_certificate_that_is_refused_says_what_to_do(verify_code: int, code: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        asyncio.run(joining._fetch(client(refusing(verify_code)), "GET", "/authority"))
    assert refused.value.refusal.code == code


def test_where_nothing_answers_it_may_be_tried_again() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match="nothing answers at"):
        asyncio.run(joining._fetch(client(answer), "GET", "/authority"))


def test_an_answer_of_another_form_is_another_version_s() -> None:
    class Asked(msgspec.Struct):
        pass

    with pytest.raises(Refused, match="of another version") as refused:
        asyncio.run(joining._ask(client(lambda _: httpx.Response(200, content=b"{}")), "/join", Asked(), Admitted))
    assert refused.value.refusal.code == "OTHER_VERSION"


def test_what_sends_no_certificate_is_no_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_client", lambda *_: client(lambda _: httpx.Response(200, content=b"<html>")))
    with pytest.raises(Refused, match="is no Cumulet") as refused:
        asyncio.run(membership(tmp_path / "rack1")._authority("https://cloud.test", "00" * 32))
    assert refused.value.refusal.code == "NO_CLOUD"


def test_at_the_api_s_port_it_says_where_the_address_of_the_door_comes_from() -> None:
    body = b'{"error": {"code": 404, "message": "Not Found"}}'
    words = r"the port of the API: .* `cumulet host add` prints .* \(it answered 404\)"
    with pytest.raises(Refused, match=words) as refused:
        asyncio.run(joining._fetch(client(lambda _: httpx.Response(404, content=body)), "GET", "/authority"))
    assert refused.value.refusal.code == "NO_CLOUD"


def test_an_image_that_finds_nobody_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImagesOfControlPlane("https://cloud.test", tmp_path)

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"

    monkeypatch.setattr(images, "_client", lambda _seconds: client(answer))
    with pytest.raises(DriverError, match="IMAGE_NOT_TAKEN: image an-image was not taken"):
        asyncio.run(images.send("an-image", 1, pieces()))
