"""Projects, as far as Compute asks about them: does one exist?"""

from __future__ import annotations

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest
from cumulet.identity.store import project_by_id


def require_project(tx: Tx, project_id: str) -> None:
    """400 unless there is such a project."""
    if project_by_id(tx, project_id) is None:
        raise BadRequest(f"Project ID {project_id} is not a valid project.")
