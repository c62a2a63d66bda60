"""Which devices an image asks for, in its own guests and as a rescue image. Names and values are upstream's.

Values that no host offers are refused where a guest is made (`image_promises`). Servers that were made before that was
so may have such values: they have no effect then.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from cumulet.compute.model import Flavor
from cumulet.compute.promises import Kept, says
from cumulet.errors import BadRequest, NotYet
from cumulet.host import devices as d
from cumulet.host import nics
from cumulet.host.devices import USUAL, Devices

_FORMER_NIC_MODELS = {"virtuale1000": d.E1000, "virtuale1000e": d.E1000E}
"""VMware's names, which upstream understands, too."""
_USB_TABLET = "usbtablet"
_CDROM_OF_USB_DISKS = d.SATA
_KNOWN_RESCUE_DEVICES = (d.DISK, d.CDROM, "floppy", "lun")
_KNOWN_BUSES = ("fdc", "ide", "sata", "scsi", "usb", "virtio", "xen", "lxc", "uml")
"""Upstream's."""
_OF_RESCUE = ("hw_rescue_device", "hw_rescue_bus", "hw_disk_bus", "hw_cdrom_bus")


def _never(value: str, flavor: Flavor) -> bool:
    return False


def _video_ram(value: str, flavor: Flavor) -> bool:
    """MiB. Every screen has `VIDEO_MIB`. The flavor has to allow what is asked for, as upstream."""
    allowed = flavor.extra_specs.get("hw_video:ram_max_mb", "0")
    return value.isdecimal() and allowed.isdecimal() and int(value) <= min(int(allowed), d.VIDEO_MIB)


KEPT: Mapping[str, Kept] = {
    "hw_cdrom_bus": says(*d.CDROM_BUSES),
    "hw_disk_bus": says(*d.BUSES),
    "hw_floppy_bus": _never,
    "hw_input_bus": says(*d.INPUT_BUSES),
    "hw_pointer_model": says(_USB_TABLET),
    "hw_scsi_model": says("virtio-scsi"),
    "hw_vif_model": says(*d.NIC_MODELS, *_FORMER_NIC_MODELS),
    "hw_video_model": says(*d.VIDEO_MODELS),
    "hw_video_ram": _video_ram,
}
"""As `image_promises.KEPT`. Other values are kept by no host, these by hosts that offer them (`needed`)."""

_PROPERTIES = {
    "disk_bus": "hw_disk_bus",
    "cdrom_bus": "hw_cdrom_bus",
    "nic_model": "hw_vif_model",
    "video_model": "hw_video_model",
    "pointer_bus": "hw_pointer_model",
    "keyboard_bus": "hw_input_bus",
    "rescue_bus": "hw_rescue_bus",
    "rescue_device": "hw_rescue_device",
}
"""By field of `Devices`: the property that asks for it."""


def of(properties: Mapping[str, object]) -> Devices:
    """The devices of a guest that is made from an image with these properties."""
    disk_bus = _chosen(properties, "hw_disk_bus", d.BUSES, usual=d.VIRTIO)
    model = _value(properties, "hw_vif_model")
    input_bus = _chosen(properties, "hw_input_bus", d.INPUT_BUSES)
    has_tablet = _value(properties, "hw_pointer_model") == _USB_TABLET
    made = Devices(
        disk_bus=disk_bus,
        cdrom_bus=_chosen(properties, "hw_cdrom_bus", d.CDROM_BUSES)
        or (_CDROM_OF_USB_DISKS if disk_bus == d.USB else disk_bus),
        nic_model=_among(_FORMER_NIC_MODELS.get(model, model), d.NIC_MODELS, usual=d.VIRTIO),
        video_model=_chosen(properties, "hw_video_model", d.VIDEO_MODELS, usual=d.VGA),
        pointer_bus=input_bus or (d.USB if has_tablet else ""),
        keyboard_bus=input_bus,
    )
    return USUAL if made == USUAL else made  # What is left out of a message is known by its identity.


def bus_of(properties: Mapping[str, object]) -> str:
    """Of its disks."""
    return of(properties).disk_bus or d.VIRTIO


def needed(devices: Devices) -> dict[str, str]:
    """By feature that a host must offer for them: the property that asks for it."""
    found: dict[str, str] = {}
    for field, feature in d.needed(devices):
        found.setdefault(feature, _PROPERTIES[field])
    return found


def require_places(properties: Mapping[str, object], ports: int) -> None:
    """BadRequest if a guest that is made from an image with these properties has no places for so many ports."""
    most = nics.most(of(properties))
    if ports > most:
        who = "A server" if most == nics.MOST_NICS else f"With the image's property hw_vif_model={d.E1000E} a server"
        raise BadRequest(f"{who} has at most {most} ports.", reason="TOO_MANY_PORTS")


def for_rescue(devices: Devices, properties: Mapping[str, object]) -> Devices:
    """A guest's devices while it is rescued from an image with these properties. Refuses what is not done.

    As upstream: if the image says which device or bus it is to be on, it is behind the guest's own disks, which stay at
    their places; otherwise it is before them, on the bus of the disks of such images.
    """
    for empty in (name for name in _OF_RESCUE if name in properties and not _value(properties, name)):
        raise BadRequest(f"The image's property {empty} is empty.")
    device, bus = (_value(properties, f"hw_rescue_{what}") for what in ("device", "bus"))
    stable = bool(device or bus)
    _require("hw_rescue_device", device or d.DISK, (d.DISK, d.CDROM), _KNOWN_RESCUE_DEVICES)
    kind = "cdrom" if device == d.CDROM else "disk"
    name = "hw_rescue_bus" if bus else f"hw_{kind}_bus"
    bus = bus or _value(properties, name) or (d.SATA if kind == "cdrom" else d.VIRTIO)
    _require(name, bus, d.CDROM_BUSES if kind == "cdrom" else d.BUSES, _KNOWN_BUSES)
    rescue_device = (device or d.DISK) if stable else ""
    return replace(devices, rescue_bus="" if bus == d.VIRTIO else bus, rescue_device=rescue_device)


def _require(name: str, value: str, done: tuple[str, ...], known: tuple[str, ...]) -> None:
    if value in done:
        return
    if value in known:
        raise NotYet(f"The image's property {name}={value} is not implemented: it may be {', '.join(done)}.")
    raise BadRequest(f"The image's property {name} is {value}, which is none of {', '.join(known)}.")


def _chosen(properties: Mapping[str, object], name: str, values: tuple[str, ...], *, usual: str = "") -> str:
    return _among(_value(properties, name), values, usual=usual)


def _among(value: str, values: tuple[str, ...], *, usual: str) -> str:
    """Empty for the usual value, and for others than these."""
    return value if value in values and value != usual else ""


def _value(properties: Mapping[str, object], name: str) -> str:
    return str(properties.get(name, "")).strip().lower()
