"""What guests and images may use of one host. `cumulet up` sets it for its own hosts, `cumulet agent` for others."""

from __future__ import annotations

import msgspec

from cumulet.settings import Settings


class HostLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is the setting of the same name in `Settings`, with the same default."""

    free_space_floor_mib: int = 1024
    image_cache_gib: int = 64
    image_cache_days: int = 30
    disk_mib_per_second: int = 512
    disk_requests_per_second: int = 20_000

    def given(self) -> dict[str, int]:
        """The limits that differ from their defaults, by name."""
        usual = msgspec.structs.asdict(USUAL_LIMITS)
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value != usual[name]}


USUAL_LIMITS = HostLimits()


def limits_of(settings: Settings) -> HostLimits:
    return HostLimits(**{name: getattr(settings, name) for name in HostLimits.__struct_fields__})
