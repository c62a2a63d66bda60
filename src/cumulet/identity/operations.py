"""Importing this declares every operation of the Identity service."""

from __future__ import annotations

from cumulet.identity import (
    assignments,
    auth,
    authentication,
    catalog,
    discovery,
    domains,
    projects,
    roles,
    users,
)
from cumulet.identity.api import IDENTITY, IDENTITY_VERSIONS

FEATURES = (assignments, auth, authentication, catalog, discovery, domains, projects, roles, users)
SERVICES = (IDENTITY, IDENTITY_VERSIONS)
