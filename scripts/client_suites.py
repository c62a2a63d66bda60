"""The functional suites of openstackclient and openstacksdk, on a cloud as DevStack makes one.

    RUNNER=path python3 scripts/client_suites.py --clouds FILE --cloud NAME --suite SUITE ...

The runner at RUNNER sets a suite up and runs it; these are its options. The suites were written for DevStack's gate
and take for granted what is made here before they start: its flavors and no others, the user `demo` in the project
`demo`, an image by its name, and the folder that they are started in. Nothing of a suite is changed. The runner starts
itself again in an environment of its own, without this project's packages.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

FLAVORS = {
    "m1.tiny": (512, 1, 1),
    "m1.small": (2048, 1, 20),
    "m1.medium": (4096, 2, 40),
    "m1.large": (8192, 4, 80),
    "m1.xlarge": (16384, 8, 160),
    "cirros256": (256, 1, 1),
    "ds512M": (512, 1, 5),
    "ds1G": (1024, 1, 10),
    "ds2G": (2048, 2, 10),
    "ds4G": (4096, 4, 20),
}
"""DevStack's: memory in MiB, virtual CPUs, disk in GiB."""
IMAGE = "cirros-empty-disk"
"""openstackclient boots its servers from the first image that is named like DevStack's."""


def runner(path: str) -> ModuleType:
    """The runner, whose set-up is ours, and which starts this file when it starts itself again."""
    spec = importlib.util.spec_from_file_location("client_suites_runner", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no runner")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Setup

    def set_up(args: object, home: str) -> object:
        made.flavors = as_devstack
        done = made(args, home)
        demo_of_devstack(Path(done.file), Path(str(vars(args)["clouds"])))
        Path(home, "run", "CONTRIBUTING.rst").write_text("Uploaded as an image by a test that runs where this lies.\n")
        return done

    vars(module).update(Setup=set_up, __file__=__file__)
    return module


def as_devstack(setup: object) -> None:
    """Flavors and images, in place of what the runner makes."""
    known = vars(setup)
    cloud = known["conn"]
    for flavor in cloud.compute.flavors():
        cloud.compute.delete_flavor(flavor)
    for name, (ram, vcpus, disk) in FLAVORS.items():
        cloud.compute.create_flavor(name=name, ram=ram, vcpus=vcpus, disk=disk)
    cloud.create_image(
        IMAGE, data=bytes(1 << 20), disk_format="raw", container_format="bare", visibility="public", wait=True
    )
    known["env"].update(OPENSTACKSDK_FLAVOR="m1.tiny", OPENSTACKSDK_IMAGE=IMAGE)


def demo_of_devstack(suites: Path, clouds: Path) -> None:
    """The suites' ordinary user is the cloud's own `demo`, in the project of that name."""
    import openstack.config

    demo = openstack.config.OpenStackConfig(config_files=[str(clouds)], load_envvars=False).get_one("demo").config
    known = json.loads(suites.read_text())
    known["clouds"]["devstack"]["auth"] = dict(demo["auth"])
    suites.write_text(json.dumps(known, indent=1))


if __name__ == "__main__":
    sys.exit(vars(runner(os.environ["RUNNER"]))["main"]())
