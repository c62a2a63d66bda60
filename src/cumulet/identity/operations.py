"""Importing this declares every operation of the Identity service."""

from __future__ import annotations

from cumulet.identity import (
    assignments,
    auth,
    authentication,
    catalog,
    domains,
    projects,
    roles,
    users,
)
from cumulet.identity.api import IDENTITY

FEATURES = (assignments, auth, authentication, catalog, domains, projects, roles, users)
