"""A cloud's state folder, before anything is kept in it."""

from __future__ import annotations

from cumulet.db.engine import database_file
from cumulet.db.full_disk import Reserve
from cumulet.settings import Settings


def own_folder(settings: Settings) -> bool:
    """The state folder is for the cloud's own user. Returns whether it has a reserve."""
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.state_dir.chmod(0o700)
    reserve = Reserve(settings.state_dir)
    reserve.spare()
    return reserve.fill()


def own_database(settings: Settings) -> None:
    """So is SQLite's file."""
    file = database_file(settings.database_url)
    if file is not None:
        file.touch(mode=0o600)
