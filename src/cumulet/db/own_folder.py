"""A cloud's state folder, before anything is kept in it."""

from __future__ import annotations

from cumulet.db.engine import database_file
from cumulet.db.full_disk import Reserve
from cumulet.settings import Settings


def own_folder(settings: Settings) -> None:
    """The state folder, and the database in it, are for the cloud's own user."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.state_dir.chmod(0o700)
    file = database_file(settings.database_url)
    if file is not None:
        file.touch(mode=0o600)
    Reserve(settings.state_dir).fill()
