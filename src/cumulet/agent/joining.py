"""How a machine joins a cloud: it makes a key, never sends it, gets a certificate, and is the host's one agent."""

from __future__ import annotations

import contextlib
import re
import shutil
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cumulet.agent.machine_names import digest, machine_id
from cumulet.clock import Clock
from cumulet.drivers.linux_network.alone import own_number
from cumulet.host.joining import (
    DOOR_NAME,
    PROTOCOL,
    Admitted,
    Claim,
    Granted,
    Join,
    KnownKey,
    Refusal,
    Refused,
    Renew,
    joins_again,
    same_machine,
)
from cumulet.host.record import NOT_UNDERSTOOD
from cumulet.owned import write_whole

if TYPE_CHECKING:
    import httpx

ANSWER_SECONDS = 30.0
CONNECT_SECONDS = 10.0
RENEW_DAYS = 10
"""How long before its end a certificate is renewed."""
_BAD_DATES = (9, 10)
"""OpenSSL's numbers for a certificate that is not valid yet, and not valid any more."""
NO_DOOR = (
    "what answers at {url} is no Cumulet's door for hosts; perhaps it is the port of the API: the address to join at "
    "is what `cumulet host add` prints where the cloud runs"
)
AnswerT = TypeVar("AnswerT", Admitted, Granted)


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What a host that has joined keeps in its state folder."""

    url: str
    ca_fingerprint: str
    name: str
    machine: str
    commands: tuple[str, ...] = ()
    """Digests of the commands, each an address and a token, that were followed. Folders of before have none."""


class Unreachable(Exception):
    """The cloud does not answer. The message says what was tried."""


class Membership:
    """A host's key and certificate, and its conversation with the door of its cloud."""

    def __init__(self, state: Path, clock: Clock, *, driver: str, wires: bool = False) -> None:
        """`wires`: whether its agent makes the network of this machine."""
        self._wires = wires
        self._state = state
        self._clock = clock
        self._driver = driver
        self._granted_to: str | None = None
        """The session of the last claim that was granted."""

    @property
    def identity(self) -> Path:
        """The folder with the certificate that it shows on the bus and for images."""
        return self._state / "bus"

    def joined(self) -> Joined | None:
        try:
            return msgspec.json.decode((self._state / "joined.json").read_bytes(), type=Joined)
        except FileNotFoundError:
            return None

    async def join(self, url: str, token: str, ca_fingerprint: str) -> Joined:
        """Redeem a token. Raises Refused and Unreachable; what is refused leaves nothing behind.

        If the answer was lost, the key is kept: asked again with the same key, the cloud answers the same. A host that
        has joined before joins again: it gets a new key, shows that it has the one before, and its guests stay. What it
        made for that is kept whatever the answer, for the cloud may know the new key only.
        """
        fresh = not self._state.exists()
        before = self.joined()
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        waiting = self._state / "joining"
        try:
            authority = await self._authority(url, ca_fingerprint)
            request = _request(waiting)
            asked = Join(
                token=token,
                machine=self._machine(),
                driver=self._driver,
                protocol=PROTOCOL,
                now_us=self._clock.now_us(),
                request=request,
                known=None if before is None else self._known(token, request),
            )
            write_whole(waiting / "ca-cert.pem", authority)
            answer = await _ask(self._client(url, waiting / "ca-cert.pem"), "/join", asked, Admitted)
        except (Refused, Unreachable) as problem:
            definite = isinstance(problem, Refused) and not problem.refusal.again
            if before is None and (definite or not (waiting / "client-key.pem").exists()):
                shutil.rmtree(waiting, ignore_errors=True)
                if fresh:
                    shutil.rmtree(self._state, ignore_errors=True)
            raise
        if before is not None and answer.name != before.name:
            raise Refused("OTHER_HOST", f"the cloud takes this machine for {answer.name}, but it is {before.name}")
        self._keep(waiting, authority, answer)
        found = Joined(
            url=url,
            ca_fingerprint=ca_fingerprint,
            name=answer.name,
            machine=self._machine(),
            commands=() if before is None else before.commands,
        )
        found = _after(found, url, token)
        self._keep_joined(found)
        shutil.rmtree(waiting)
        return found

    def _known(self, token: str, request: str) -> KnownKey | None:
        """That it has the key that it had. None: the key is lost."""
        try:
            key = _key_of(self.identity / "client-key.pem")
        except FileNotFoundError:
            return None
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        signature = key.sign(joins_again(token, request), ec.ECDSA(hashes.SHA256()))
        return KnownKey(key=key.public_key().public_bytes(*form).decode(), signature=signature.hex())

    def _keep(self, keys: Path, authority: bytes, answer: Admitted) -> None:
        """The certificate beside its key. It is written last, so it never stands beside a key that it does not fit."""
        folder = self.identity
        folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(folder / "ca-cert.pem", authority)
        write_whole(folder / "client-key.pem", (keys / "client-key.pem").read_bytes())
        write_whole(folder / "client-cert.pem", answer.certificate.encode())

    async def claim(self, session: str) -> Granted:
        """Become this host's only agent. Raises Refused and Unreachable.

        The cloud knows the host by the names that its machine has at a session's first claim; so does its folder then.
        """
        joined = self._joined()
        if self.has_ended():
            raise Refused(
                "CERTIFICATE_ENDED",
                f"the certificate of {joined.name} has ended (its agent renews it while it runs), or the clock here is "
                f"wrong: set it, or run `cumulet host add {joined.name}` where the cloud runs, and here what that "
                "prints: then it joins again, with its guests",
            )
        asked = Claim(
            session=session,
            machine=self._machine(),
            driver=self._driver,
            protocol=PROTOCOL,
            now_us=self._clock.now_us(),
        )
        granted = await _ask(self._own_client(joined), "/claim", asked, Granted)
        if session != self._granted_to:
            self._granted_to = session
            with contextlib.suppress(OSError):  # The disk may be full. The cloud decides, and the next start tries.
                self._keep_joined(msgspec.structs.replace(self._joined(), machine=asked.machine))
        return granted

    def _keep_joined(self, joined: Joined) -> None:
        if joined != self.joined():
            write_whole(self._state / "joined.json", msgspec.json.encode(joined))

    def has_ended(self) -> bool:
        """Whether its certificate has: it may join again."""
        return self._seconds_left() <= 0

    def _machine(self) -> str:
        return f"{machine_id()}@{own_number()}" if self._wires else machine_id()

    def is_of_this_machine(self) -> bool:
        """Whether it has joined, or was last admitted, on this machine, by its own records: else it may join again."""
        return same_machine(self._joined().machine, machine_id())

    def has_followed(self, url: str, token: str) -> bool:
        """Whether this command was followed before: since then the cloud may have moved on."""
        return _command(url, token) in self._joined().commands

    async def moved_to(self, url: str, token: str) -> Joined:
        """Follow a command whose token is not needed: ask its cloud at this address from now on, which has to answer
        there if that is another than before: a door with a certificate of the authority that it knows. Raises Refused
        and Unreachable; then nothing is changed."""
        before = self._joined()
        joined = _after(before, url, token)
        if url != before.url:
            await _fetch(self._own_client(joined), "GET", "/authority")
        self._keep_joined(joined)
        return joined

    def needs_renewal(self) -> bool:
        return self._seconds_left() < RENEW_DAYS * 86_400

    def _seconds_left(self) -> float:
        certificate = x509.load_pem_x509_certificate((self.identity / "client-cert.pem").read_bytes())
        return certificate.not_valid_after_utc.timestamp() - self._clock.now_us() / 1_000_000

    async def renew(self) -> None:
        """A new certificate for the key it has. Raises Refused and Unreachable."""
        asked = Renew(request=_request(self.identity))
        answer = await _ask(self._own_client(self._joined()), "/renew", asked, Admitted)
        write_whole(self.identity / "client-cert.pem", answer.certificate.encode())

    def tls(self) -> ssl.SSLContext:
        """For the bus and images."""
        context = ssl.create_default_context(cafile=str(self.identity / "ca-cert.pem"))
        context.load_cert_chain(self.identity / "client-cert.pem", self.identity / "client-key.pem")
        return context

    def _joined(self) -> Joined:
        joined = self.joined()
        assert joined is not None, "it has not joined"
        return joined

    def _own_client(self, joined: Joined) -> httpx.AsyncClient:
        return _client(joined.url, self.tls())

    def _client(self, url: str, authority: Path) -> httpx.AsyncClient:
        return _client(url, ssl.create_default_context(cafile=str(authority)))

    async def _authority(self, url: str, ca_fingerprint: str) -> bytes:
        """The certificate of the cloud's authority, known by its fingerprint whoever sends it. Raises Refused."""
        nobody = ssl.create_default_context()
        # What it sends is compared with the fingerprint below, so TLS need not check who sends it.
        nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
        sent = await _fetch(_client(url, nobody), "GET", "/authority")
        try:
            found = x509.load_pem_x509_certificate(sent).fingerprint(hashes.SHA256()).hex()
        except ValueError:
            raise Refused("NO_CLOUD", NO_DOOR.format(url=url)) from None
        if found != re.sub(r"[:\s]", "", ca_fingerprint).lower():
            raise Refused(
                "WRONG_CA",
                f"what answers at {url} is not the cloud that printed this command: its authority's fingerprint is "
                f"{found}",
            )
        return sent


def _after(joined: Joined, url: str, token: str) -> Joined:
    """What a host keeps that has followed a command."""
    followed = dict.fromkeys((*joined.commands, _command(url, token)))
    return msgspec.structs.replace(joined, url=url, commands=tuple(followed))


def _command(url: str, token: str) -> str:
    return digest("cumulet command", url, token)[:16]


def _request(folder: Path) -> str:
    """A request for a certificate. The key is made if there is none."""
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / "client-key.pem"
    if not file.exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_whole(file, fresh.private_bytes(*form))
    key = _key_of(file)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _key_of(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _client(url: str, context: ssl.SSLContext) -> httpx.AsyncClient:
    import httpx

    context.minimum_version = ssl.TLSVersion.TLSv1_3
    limits = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    return httpx.AsyncClient(base_url=url, verify=context, timeout=limits, trust_env=False)


async def _ask(client: httpx.AsyncClient, path: str, asked: msgspec.Struct, kind: type[AnswerT]) -> AnswerT:
    raw = await _fetch(client, "POST", path, msgspec.json.encode(asked))
    try:
        return msgspec.json.decode(raw, type=kind)
    except NOT_UNDERSTOOD as error:
        raise Refused(
            "OTHER_VERSION", f"the cloud's answer was not understood, it is of another version: {error}"
        ) from None


async def _fetch(client: httpx.AsyncClient, method: str, path: str, body: bytes = b"") -> bytes:
    import httpx

    try:
        async with client:
            extensions = {"sni_hostname": DOOR_NAME}
            answer = await client.request(method, path, content=body, extensions=extensions)
    except httpx.HTTPError as error:
        if (number := _verify_code(error)) in _BAD_DATES:
            when = "not good yet" if number == 9 else "over"
            raise Refused(
                "WRONG_CLOCK",
                f"this machine's clock is wrong (the cloud's certificate is {when}): set it (with chrony, or "
                "systemd-timesyncd) and start the agent again",
            ) from None
        if number is not None:
            raise Refused("WRONG_CA", f"what answers at {client.base_url} is not this host's cloud") from None
        raise Unreachable(f"nothing answers at {client.base_url}: {error or type(error).__name__}") from error
    if answer.status_code == 200:
        return answer.content
    try:
        refusal = msgspec.json.decode(answer.content, type=Refusal)
    except NOT_UNDERSTOOD:
        words = NO_DOOR.format(url=client.base_url)
        raise Refused("NO_CLOUD", f"{words} (it answered {answer.status_code})") from None
    raise Refused(refusal.code, refusal.message, again=refusal.again)


def _verify_code(error: BaseException) -> int | None:
    """OpenSSL's reason, if a certificate was refused here."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_code
        cause = cause.__cause__ or cause.__context__
    return None
