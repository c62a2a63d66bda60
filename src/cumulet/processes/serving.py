"""Serves the services of parts over HTTPS: in an API process, and in `all`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from cumulet import rootless
from cumulet.ca import Issued
from cumulet.conductor.presence import Presence
from cumulet.fleet.api_certificate import certificate_of_api
from cumulet.part import Part, hosts_offer_of, hypervisors_of
from cumulet.processes.certificates import Certificates
from cumulet.processes.ground import Ground
from cumulet.wake import Wake
from cumulet.web.app import App
from cumulet.web.audit import Audit
from cumulet.web.context import Authenticator, Cloud, Door
from cumulet.web.policy import Policy
from cumulet.web.scraper import scraper_token
from cumulet.web.server import Server, serve


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """An API that serves. `cloud`: for its handlers; `certificate`: the one that clients see."""

    cloud: Cloud
    server: Server
    certificate: Issued


def cloud_of(
    parts: Sequence[Part],
    ground: Ground,
    *,
    identity: Authenticator,
    policy: Policy,
    wake: Wake,
    certificates: Certificates | None = None,
    presence: Presence | None = None,
    door: Door | None = None,
) -> Cloud:
    """The cloud that requests to the services of `parts` run against."""
    return Cloud(
        settings=ground.settings,
        db=ground.db,
        clock=ground.clock,
        state_dir=ground.settings.state_dir,
        hosts=ground.hosts,
        space=ground.space,
        hosts_offer=hosts_offer_of(parts),
        hypervisors=hypervisors_of(parts),
        identity=identity,
        policy=policy,
        certificates=tuple if certificates is None else certificates.left,
        wake=wake,
        presence=presence,
        door=door,
    )


async def serve_api(
    parts: Sequence[Part], cloud: Cloud, certificates: Certificates, stack: AsyncExitStack, *, own: Path
) -> Api:
    """Serve the services of `parts` where `cloud.settings` says; `stack` stops it. `own`: as for `start_api`."""
    settings = cloud.settings
    audit = Audit(own / "audit.jsonl")
    stack.callback(audit.close)
    token = scraper_token(own / "metrics-token", cloud.clock)
    app = App(cloud, [part.service for part in parts], audit=audit, scraper_token=token)
    stack.callback(app.tell_left_out)  # before the trail is closed
    cloud.db.computed = app.registry.turns.note
    cloud.db.busy = app.registry.turns.busy
    cloud.hosts.standstill.told = app.registry.turns.make_way

    def again() -> Issued:
        return certificate_of_api(settings, certificates.authority, own, cloud.clock)

    certificate = again()
    server = await serve(
        app,
        address=settings.listen_address,
        port=settings.listen_port,
        certificate=certificate.certificate,
        key=certificate.key,
        connections=settings.connections,
        connections_per_address=settings.connections_per_address,
        listening=rootless.listener(),
        turns=app.registry.turns,
    )
    stack.push_async_callback(server.stop)
    certificates.keep("API", certificate, again, lambda new: server.tls.load_cert_chain(new.certificate, new.key))
    return Api(cloud=cloud, server=server, certificate=certificate)
