"""Connections of openstacksdk to one cloud, closed when the test is over."""

from __future__ import annotations

import weakref
from pathlib import Path

from openstack.config import OpenStackConfig
from openstack.connection import Connection


class Connections:
    """The connections that tests asked for. The SDK keeps each one, with its sockets, until it is closed."""

    def __init__(self, clouds_yaml: Path) -> None:
        self._file = clouds_yaml
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()

    def make(self, name: str) -> Connection:
        """A connection for the entry `name` of clouds.yaml."""
        # Only this cloud's file: neither the user's own clouds.yaml nor OS_* variables may lead a test elsewhere.
        config = OpenStackConfig(config_files=[str(self._file)], secure_files=[], vendor_files=[], load_envvars=False)
        made = Connection(config=config.get_one(cloud=name))
        self._made.add(made)
        return made

    def close(self) -> None:
        """Close all. A connection that is used again opens new sockets, which the next `close` closes."""
        for connection in list(self._made):
            connection.close()
