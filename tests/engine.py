"""What lies behind the interface of a home's store, for tests of the engine and of its file."""

from contextlib import closing
from pathlib import Path

import apsw

from soulkeep.repository.sqlite import SqliteRepository
from soulkeep.repository.sqlite.database import Database
from soulkeep.service.home import Home


def store_of(home: Home) -> SqliteRepository:
    """Return the store as its engine has it."""
    assert isinstance(home.repository, SqliteRepository)
    return home.repository


def database_of(home: Home) -> Database:
    """Return the connection of the store."""
    return store_of(home)._database


def file_of(home: Home) -> Path:
    """Return the store's file."""
    return store_of(home).path


def by_another_program(home: Home, sql: str, values: tuple[object, ...] = ()) -> None:
    """Write into the store's tables as a program does that knows nothing of the log of changes."""
    with closing(apsw.Connection(str(file_of(home)))) as other:
        other.set_busy_timeout(5_000)
        other.execute(sql, values)
