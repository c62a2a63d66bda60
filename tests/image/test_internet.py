"""Only hosts of the Internet are fetched from, whatever the URL, the name server or the answer says."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import logging
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cumulet.ca import CertificateAuthority
from cumulet.image import internet
from cumulet.image.internet import NotAllowed, NotFetched
from cumulet.web.log import log_to

ANY = ("*",)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[fe80::a9fe:a9fe%25eth0]/",
        "http://localhost/",
        "http://metadata/",
        "http://images.example.0x7f/",
        "http://images.example.127/",
        "http://①②⑦.⓪.⓪.①/",
        "http://images.example.org\\@127.0.0.1/",
        "http://127.0.0.1\\@images.example.org/",
        "http://images.example.org@127.0.0.1/",
        "http://user:word@images.example.org/",
        "http://images.example.org:22/",
        "http://images.example.org:8774/",
        "http://images.example.org:99999/",
        "http://images.example.org:port/",
        "http://images..example.org/",
        "http://-images.example.org/",
        "http://images.example.org%2f@127.0.0.1/",
        "http://%31%32%37.0.0.1/",
        "http://images.example.org /",
        "http://images.example.org/\r\nX: y",
        "http://images.example.org/\0",
        "ftp://images.example.org/",
        "file:///etc/shadow",
        "gopher://images.example.org/",
        "//images.example.org/",
        "images.example.org",
        "",
        "http:///",
        "http://images.example.org/" + "x" * internet.LONGEST_URL,
    ],
)
def test_a_url_that_names_no_host_of_the_internet_is_refused(url: str) -> None:
    with pytest.raises(NotAllowed):
        internet.target_of(url, ANY)


@pytest.mark.parametrize(
    ("url", "port", "path"),
    [
        ("http://images.example.org", 80, "/"),
        ("HTTPS://Images.Example.org./a?b=c#d", 443, "/a?b=c"),
        ("https://images.example.org:80/a", 80, "/a"),
        ("http://1.images.xn--p1ai/a", 80, "/a"),
    ],
)
def test_a_url_is_taken_apart(url: str, port: int, path: str) -> None:
    target = internet.target_of(url, ANY)
    assert (target.port, target.path) == (port, path)


@pytest.mark.parametrize(
    ("host", "allowed", "taken"),
    [
        ("images.example.org", ("images.example.org",), True),
        ("images.example.org", ("*.example.org",), True),
        ("example.org", ("*.example.org",), False),
        ("badexample.org", ("*.example.org",), False),
        ("images.example.org.evil.net", ("images.example.org", "*.example.org"), False),
        ("images.example.org", (), False),
    ],
)
def test_only_hosts_that_the_operator_names_are_asked(host: str, allowed: tuple[str, ...], taken: bool) -> None:
    if taken:
        assert internet.target_of(f"https://{host}/", allowed).host == host
    else:
        with pytest.raises(NotAllowed):
            internet.target_of(f"https://{host}/", allowed)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.0.1", "169.254.169.254", "172.16.0.1"),
        *("192.0.0.1", "192.0.2.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:8.8.8.8", "::ffff:10.0.0.1", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::1", "2001:db8::1", "fc00::1", "fd00:ec2::254"),
        *("fe80::1", "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "100::1", "4000::1"),
    ],
)
def test_an_address_that_is_not_the_internets_is_not_public(address: str) -> None:
    assert not internet.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "185.125.190.37", "2606:4700:4700::1111", "2a01:4f8::1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert internet.is_public(ipaddress.ip_address(address))


def test_the_setting_names_hosts_separated_by_commas() -> None:
    assert internet.hosts_in("") == ()
    assert internet.hosts_in("images.example.org, *.example.net,") == ("images.example.org", "*.example.net")


def test_an_address_of_this_machine_is_known_as_its_own() -> None:
    assert internet.is_ours(ipaddress.ip_address("127.0.0.1"))
    assert not internet.is_ours(ipaddress.ip_address("8.8.8.8"))


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["8.8.8.8", "::1"],
        ["8.8.8.8", "::ffff:10.0.0.1"],
        ["fe80::1%eth0"],
        ["not an address"],
    ],
)
def test_a_name_with_one_address_that_is_not_public_is_refused(found: list[str]) -> None:
    with pytest.raises(NotAllowed):
        internet.address_of(found, "images.example.org")


def test_the_first_of_public_addresses_is_asked() -> None:
    assert str(internet.address_of(["8.8.8.8", "1.1.1.1"], "images.example.org")) == "8.8.8.8"
    with pytest.raises(NotFetched):
        internet.address_of([], "images.example.org")


class Site:
    """A server on this machine that stands for one of the Internet, and what it was asked; over TLS with `context`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        site = self
        self.asked: list[tuple[str, str]] = []
        self.redirections: dict[str, str] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.headers["Host"], self.path))
                self.close_connection = True
                if self.path in site.redirections:
                    self.send_response(302)
                    self.send_header("Location", site.redirections[self.path])
                    self.end_headers()
                elif self.path == "/gone":
                    self.send_error(404)
                elif self.path == "/short":
                    self.send_response(200)
                    self.send_header("Content-Length", "100")
                    self.end_headers()
                    self.wfile.write(b"short")
                else:
                    self.send_response(200)
                    self.send_header("Content-Encoding", "gzip")
                    self.end_headers()
                    self.wfile.write(b"data" * 1000)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@contextlib.contextmanager
def standing_for_the_internet(made: Site, scheme: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """`images.example.org` is at 127.0.0.1, which counts as the Internet; the site's port counts as the scheme's."""

    async def resolve(host: str, _port: int) -> list[str]:
        return ["127.0.0.1"] if host == "images.example.org" else ["10.0.0.1"]

    is_public = internet.is_public
    monkeypatch.setattr(internet, "resolve", resolve)
    monkeypatch.setattr(internet, "is_public", lambda address: str(address) == "127.0.0.1" or is_public(address))
    monkeypatch.setattr(internet, "is_ours", lambda _: False)
    monkeypatch.setattr(internet, "PORTS", {**internet.PORTS, scheme: made.server.server_address[1]})
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with standing_for_the_internet(Site(), "http", monkeypatch) as made:
        yield made


def fetched(url: str, allowed: tuple[str, ...] = ANY) -> bytes:
    async def all_of_it() -> bytes:
        return b"".join([piece async for piece in internet.fetch(url, allowed)])

    return asyncio.run(all_of_it())


def test_content_comes_as_it_is_sent_from_the_host_that_was_named(site: Site) -> None:
    assert fetched("http://images.example.org/a?b") == b"data" * 1000
    assert site.asked == [("images.example.org", "/a?b")]


def test_a_signed_url_is_in_no_log(site: Site) -> None:
    stream = io.StringIO()
    handler = log_to(stream)
    try:
        assert fetched("http://images.example.org/hunter2?by=hunter2") == b"data" * 1000
    finally:
        logging.getLogger().removeHandler(handler)
    assert "hunter2" not in stream.getvalue()


def test_redirections_are_followed_so_far_and_each_is_looked_at(site: Site) -> None:
    site.redirections = {"/a": "/b", "/b": "http://images.example.org/c", "/loop": "/loop"}
    assert fetched("http://images.example.org/a") == b"data" * 1000
    with pytest.raises(NotFetched, match="too many"):
        fetched("http://images.example.org/loop")
    bad = ("http://127.0.0.1/", "http://169.254.169.254/", "http://inside.example.org/", "file:///etc/shadow")
    for place in (*bad, "//localhost/", "http://images.example.org:22/", "http://[::1]/"):
        site.redirections = {"/a": place}
        asked = len(site.asked)
        with pytest.raises(NotAllowed):
            fetched("http://images.example.org/a")
        assert len(site.asked) == asked + 1, place
    site.redirections = {"/a": "http://other.example.net/"}
    with pytest.raises(NotAllowed):
        fetched("http://images.example.org/a", ("*.example.org",))
    site.redirections = {"/a": ""}
    with pytest.raises(NotFetched, match="nowhere"):
        fetched("http://images.example.org/a")


@pytest.mark.parametrize(
    ("names", "ips", "known", "taken"),
    [
        (("images.example.org",), (), True, True),
        (("images.example.org",), (), False, False),
        (("other.example.org",), (), True, False),
        ((), ("127.0.0.1",), True, False),
    ],
    ids=["its own", "of an authority that nobody knows", "of another name", "of the address"],
)
def test_over_https_the_certificate_has_to_be_the_named_hosts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    ips: tuple[str, ...],
    known: bool,
    taken: bool,
) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path / "ca")
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_file))
    issued = authority.issue_server(tmp_path / "site", names, ips)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)
    asked_for: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    with standing_for_the_internet(Site(context), "https", monkeypatch) as site:
        if taken:
            assert fetched("https://images.example.org/a") == b"data" * 1000
        else:
            with pytest.raises(NotFetched, match="connection failed"):
                fetched("https://images.example.org/a")
    assert site.asked == ([("images.example.org", "/a")] if taken else [])
    assert asked_for == ["images.example.org"]


def test_an_https_page_does_not_redirect_to_http() -> None:
    target = internet.target_of("https://images.example.org/", ANY)
    with pytest.raises(NotAllowed):
        internet._redirected(target, "http://images.example.org/")
    assert internet._redirected(target, "/a") == "https://images.example.org/a"


def test_failures_are_reported_in_words(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFetched, match="404"):
        fetched("http://images.example.org/gone")
    with pytest.raises(NotFetched, match="connection failed"):
        fetched("http://images.example.org/short")
    monkeypatch.setattr(internet, "LONGEST_SECONDS", 0.0)
    with pytest.raises(NotFetched, match="too long"):
        fetched("http://images.example.org/a")


def test_a_name_that_is_not_known_is_not_found() -> None:
    async def ask() -> list[str]:
        return await internet.resolve("images.invalid", 80)

    with pytest.raises(NotFetched):
        asyncio.run(ask())
