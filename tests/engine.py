"""What lies behind the interface of a home's store, for tests of the engine and of its file."""

from pathlib import Path

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
