"""Connections of openstacksdk to one cloud, closed when the test is over."""

from __future__ import annotations

import weakref
from pathlib import Path

from openstack.config import OpenStackConfig
from openstack.connection import Connection


class Connections:
    """Those that tests have asked for. The SDK keeps each, and its sockets, until somebody closes it."""

    def __init__(self, clouds_yaml: Path) -> None:
        self._file = clouds_yaml
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()

    def make(self, name: str) -> Connection:
        """As the entry `name` of clouds.yaml."""
        # Only this cloud's file: neither the user's own clouds.yaml nor OS_* variables may lead a test elsewhere.
        config = OpenStackConfig(config_files=[str(self._file)], secure_files=[], vendor_files=[], load_envvars=False)
        made = Connection(config=config.get_one(cloud=name))
        self._made.add(made)
        return made

    def close(self) -> None:
        """All of them. One that is used again opens what it needs, until the next time."""
        for connection in list(self._made):
            connection.close()
