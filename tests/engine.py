"""What lies behind the interface of a home's store, for tests of the engine and of its file."""

from contextlib import closing
from dataclasses import dataclass
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


def another_program(store: Path) -> apsw.Connection:
    """Open a store's file as another program does: plain SQLite, which waits for who writes or reads.

    A home and a server write beside calls too, so whoever did not wait would fail at times.
    """
    connection = apsw.Connection(str(store))
    connection.set_busy_timeout(20_000)
    return connection


def by_another_program(home: Home, sql: str, values: tuple[object, ...] = ()) -> None:
    """Write into the store's tables as a program does that knows nothing of the log of changes."""
    with closing(another_program(file_of(home))) as other:
        other.execute(sql, values)


@dataclass
class Page:
    """A document as somebody reads and writes it by hand, whether it is a file or a row."""

    home: Home
    name: str

    def exists(self) -> bool:
        return self.home.documents.texts.read(self.name) is not None

    def read_bytes(self) -> bytes:
        content = self.home.documents.texts.read(self.name)
        assert content is not None
        return content

    def write_bytes(self, content: bytes) -> None:
        texts = self.home.documents.texts
        if not texts.add([self.name], lambda _: content):
            texts.rewrite(self.name, lambda _: content, lambda _: None)

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    def unlink(self) -> None:
        self.home.documents.texts.remove(self.name)
