"""Where Cumulet answers otherwise than Nova and means to. An entry that explains nothing fails the test."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """`cases`: ids, with wildcards. `status`: what Cumulet answers instead; None where the status is Nova's, and then
    each difference contains one of `lines`."""

    cases: tuple[str, ...]
    reason: str
    status: int | None = None
    lines: tuple[str, ...] = ()

    def covers(self, name: str, status: int, found: tuple[str, ...]) -> bool:
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.cases):
            return False
        if self.status is not None:
            return status == self.status
        return all(any(line in difference for line in self.lines) for difference in found)


DEVIATIONS: Final[tuple[Deviation, ...]] = (
    # --- security -------------------------------------------------------------------------------------------------
    Deviation(
        cases=("*:system_reader",),
        status=404,
        reason="Nova answers 500 or 403, and so tells that a server exists to a caller who may see no servers.",
    ),
    Deviation(
        cases=("list/marker={other}@*",),
        status=400,
        reason="A marker outside the list asked for is unknown; Nova takes another project's.",
    ),
    Deviation(
        cases=("live/to a disabled host@*", "live/forced to a disabled host@*"),
        status=400,
        reason="A disabled host takes no server, whatever the microversion; Nova asks the scheduler only from 2.30 on.",
    ),
    Deviation(
        cases=("live/forced to a disabled host@*",),
        lines=("afterwards",),
        reason="`force` skips no check here: Nova moves the server to a disabled host.",
    ),
    Deviation(
        cases=("create/name newline at the end@*",),
        status=400,
        reason="A line break at the end of a name is refused; Nova's pattern lets it through by the meaning of `$`.",
    ),
    Deviation(
        cases=("actions/same action twice@*",),
        status=400,
        reason="A body with the same key twice is ambiguous; Nova takes the last one.",
    ),
    Deviation(
        cases=("tags/*:other_member", "tags/*:other_manager"),
        status=404,
        reason="Nova answers 403 and so tells another project that the server exists.",
    ),
    Deviation(
        cases=("events/malformed@*",),
        status=403,
        reason="Who may not tell of events has no body read: it may be as large as one of 1,000 events is.",
    ),
    # --- artefacts of the oracle ----------------------------------------------------------------------------------
    Deviation(
        cases=("parts/security groups@*",),
        status=200,
        reason="Nova's network fixture fails here (500); the documentation says 200.",
    ),
    Deviation(
        cases=("running/list@*", "running/show@*"),
        lines=("_bytes: Nova answers null, Cumulet int",),
        reason="Progress in bytes is told while it is known; the oracle's driver does not count any.",
    ),
    Deviation(
        cases=("parts/diagnostics@2.1:admin", "parts/diagnostics@2.47:admin"),
        lines=("body: key ",),
        reason="Up to 2.47 the keys of diagnostics are the hypervisor's own.",
    ),
    Deviation(
        cases=("parts/diagnostics@2.48:admin", "parts/diagnostics@2.104:admin"),
        lines=("Cumulet null",),
        reason="What the hypervisor does not tell is null; the oracle's driver makes up every figure.",
    ),
    Deviation(
        cases=("hypervisors/uptime@*",),
        status=200,
        reason="Hosts tell their uptime; the oracle's driver cannot (501), libvirt's can.",
    ),
    Deviation(
        cases=("hypervisors/detail*", "hypervisors/show*"),
        lines=(".uptime: Nova answers null, Cumulet string",),
        reason="Hosts tell their uptime; the oracle's driver cannot, libvirt's can.",
    ),
    # --- plainer answers ------------------------------------------------------------------------------------------
    Deviation(
        cases=("negotiation/*", "gone/*", "parts/image of no server@*"),
        lines=("Nova text/html, Cumulet application/json", "body: Nova answers text"),
        reason="Unknown paths and methods get the same JSON error as everything else, not a page of HTML.",
    ),
    Deviation(
        cases=("negotiation/body too large@*",),
        lines=("header ", "body: Nova answers text"),
        reason="A body that is too large is refused in JSON and with the version headers.",
    ),
    Deviation(
        cases=("versions/root@*",),
        lines=("request-id: Nova none, Cumulet given",),
        reason="Every answer has a request id.",
    ),
    Deviation(
        cases=("negotiation/body nul to */action@*",),
        status=400,
        reason="A body with a NUL in it is refused before anything looks at it.",
    ),
    Deviation(
        cases=(
            "negotiation/double slash@*",
            "negotiation/OPTIONS*",
            "versions/by id@none:member",
            "versions/post root@*",
        ),
        status=404,
        reason="Paths and methods that only Nova's route library makes possible are unknown here.",
    ),
    Deviation(
        cases=("versions/unknown id@*",),
        lines=("header ",),
        reason="There is no /versions below /v2.1: the path is unknown, and so without version headers.",
    ),
    Deviation(
        cases=("interfaces/detach unknown@*",),
        status=404,
        reason="A port that the server does not have is unknown, as the API reference says; Nova drops it later.",
    ),
    # --- not yet --------------------------------------------------------------------------------------------------
    Deviation(
        cases=("create/block devices*", "create/personality given@*"),
        status=501,
        reason="Block device mappings and injected files are not offered yet.",
    ),
    Deviation(
        cases=("interfaces/attach*", "interfaces/detach*", "volumes/attach*"),
        status=501,
        reason="Attaching to a server that exists is not offered yet.",
    ),
)
