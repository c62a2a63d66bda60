"""Importing this declares every operation of the Identity service."""

from __future__ import annotations

from cumulet.identity import (
    assignments,
    auth,
    authentication,
    catalog,
    domains,
    projects,
    regions,
    roles,
    users,
)
from cumulet.identity.api import IDENTITY

__all__ = ["FEATURES", "IDENTITY"]

FEATURES = (assignments, auth, authentication, catalog, domains, projects, regions, roles, users)
