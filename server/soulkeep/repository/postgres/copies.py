"""Copies of a home beside it in its database, and such a copy in its place.

A copy is lines of JSON, packed and cut into rows: what it is, documents, pages of rows, then a digest of
all before it. To be changed or put in place it becomes a home of its own beside the one that it is of,
for that long.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from itertools import chain, count
from typing import Any

import psycopg

from soulkeep.days import Days
from soulkeep.errors import BackupDamagedError, BackupsBusyError, SchemaTooNewError
from soulkeep.models import Backup
from soulkeep.progress import tell
from soulkeep.repository import OpenedCopy, Repository, Rows
from soulkeep.repository.postgres import PostgresRepository
from soulkeep.repository.postgres.connections import translated
from soulkeep.repository.postgres.database import Database
from soulkeep.repository.postgres.documents import DocumentRows
from soulkeep.repository.postgres.schema import STEPS
from soulkeep.repository.postgres.upkeep import SOURCES, Upkeep
from soulkeep.repository.values import COLUMNS

PART = 1_000_000
"""How many bytes a row has at least of a packed copy, but for the last one."""

_ASIDE = "\n"
"""Between the owner of a home and what a copy of it is called: no home has it in its name."""

_LOOK_AGAIN_S = 0.1

_PART = (
    "SELECT content FROM backup_parts"
    " WHERE owner = %(owner)s AND backup = %(backup)s AND number = %(number)s"
)
_DELETE = "DELETE FROM backups WHERE owner = %s AND id = %s"


class PostgresCopies:
    """Copies of the home of one owner.

    `texts` are its documents: inside `add` those of that moment, and inside `replacing` written
    together with the rows.
    """

    def __init__(self, url: str, owner: str, days: Days) -> None:
        self._url, self._owner, self._days = url, owner, days
        self._of_thread = threading.local()
        with self._using() as database:
            self.place = f"{database.place} ({owner})"
        self.texts = DocumentRows(self.place, self._using)

    @contextmanager
    def _using(self, opened: PostgresRepository | None = None) -> Iterator[Database]:
        """Let documents be read and written over a store's connection, or the one that is in use."""
        former = getattr(self._of_thread, "database", None)
        with ExitStack() as stack:
            database: Database | None = former if opened is None else opened.database
            if database is None:
                database = stack.enter_context(closing(Database(self._url, self._owner)))
            self._of_thread.database = database
            try:
                yield database
            finally:
                self._of_thread.database = former

    @contextmanager
    def exclusive(self, timeout_s: float) -> Iterator[None]:
        """Keep others, on whichever machine, from copies of this home during the block.

        Raises:
            BackupsBusyError: Somebody has not finished within `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        with self._using() as database, ExitStack() as stack:
            while not stack.enter_context(database.server.sole_holder(f"{self._owner}{_ASIDE}copies")):
                stack.close()
                if time.monotonic() > until:
                    raise BackupsBusyError(self.place)
                time.sleep(_LOOK_AGAIN_S)
            yield

    def list_copies(self) -> list[Backup]:
        """Return those that are whole, in any order."""
        with self._using() as database:
            rows = database.query("SELECT id, about FROM backups WHERE owner = %(owner)s")
        return [Backup(copy_id, **about) for copy_id, about in rows]

    def add(self, made: Backup, documents: Callable[[], Mapping[str, bytes]]) -> Backup:
        """Keep the present moment as `made` has it, with the documents that are read in it.

        Others can write meanwhile. A process that is killed leaves nothing of it.

        Raises:
            StoreError: The home cannot be read, or the copy not written.
        """
        with (
            closing(self._opened(self._owner)) as store,
            store.snapshot(),
            self._using(store),
            self._writing(store) as connection,
        ):
            return self._write(connection, store, made, documents())

    def _opened(self, owner: str) -> PostgresRepository:
        return PostgresRepository(self._url, owner, self._days)

    @contextmanager
    def _writing(self, store: PostgresRepository) -> Iterator[psycopg.Connection[Any]]:
        """Write copies in a transaction that keeps nobody from writing into the home."""
        server = store.database.server
        with translated(self.place), server.connect() as connection, connection.transaction():
            yield connection

    def _write(
        self,
        connection: psycopg.Connection[Any],
        store: PostgresRepository,
        made: Backup,
        documents: Mapping[str, bytes],
    ) -> Backup:
        rows, size, one = store.rows, 0, {"owner": self._owner, "id": made.id}
        made = replace(made, counts=store.count_rows())
        connection.execute(
            "INSERT INTO backups (owner, id, about) VALUES (%(owner)s, %(id)s, '{}')", one
        )
        about = {"schema": len(STEPS), "ids": rows.last_ids()}
        texts = ({"document": name, "content": _encoded(text)} for name, text in documents.items())
        tables = ({"table": table, "rows": page} for table in COLUMNS for page in pages(rows, table))
        for number, part in enumerate(_packed(chain([about], texts, tables))):
            tell("Copying the store")
            size += len(part)
            connection.execute(
                "INSERT INTO backup_parts (owner, backup, number, content)"
                " VALUES (%(owner)s, %(id)s, %(number)s, %(part)b)",
                one | {"number": number, "part": part},
            )
        made = replace(made, size=size)
        noted = {name: value for name, value in asdict(made).items() if name not in ("id", "left_out")}
        connection.execute(
            "UPDATE backups SET about = %(about)s WHERE owner = %(owner)s AND id = %(id)s",
            one | {"about": json.dumps(noted)},
        )
        return made

    def drop(self, copy_id: str) -> None:
        """Delete one."""
        with closing(self._opened(self._owner)) as store, self._writing(store) as connection:
            connection.execute(_DELETE, [self._owner, copy_id])

    @contextmanager
    def opened(self, copy_id: str) -> Iterator[OpenedCopy]:
        """Open one to change it; after the block it says what was made of it.

        Raises:
            BackupDamagedError: It is not whole.
            StoreError: It cannot be opened or written; it is as it was.
        """
        (made,) = [each for each in self.list_copies() if each.id == copy_id]
        with self._aside(made) as (copy, documents):
            yield copy, documents
            with copy.snapshot(), self._writing(copy) as connection:
                connection.execute(_DELETE, [self._owner, copy_id])
                self._write(connection, copy, made, documents)

    @contextmanager
    def _aside(self, made: Backup) -> Iterator[tuple[PostgresRepository, dict[str, bytes]]]:
        """Make a home of a copy for the block; what a killed process left of others goes first."""
        self.drop_leftovers()
        documents, counted = dict[str, bytes](), Counter[str]()
        with ExitStack() as stack:
            aside = f"{self._owner}{_ASIDE}{secrets.token_hex(8)}"
            stack.callback(self._drop_home, aside)
            copy = stack.enter_context(closing(self._opened(aside)))
            with copy.recording():
                for line in self._lines(made.id):
                    if "ids" in line:
                        copy.rows.continue_ids(line["ids"])
                    elif "document" in line:
                        documents[line["document"]] = base64.b64decode(line["content"])
                    else:
                        table, rows = line["table"], line["rows"]
                        if table == "vec_memories":
                            rows = [(key, base64.b64decode(vector)) for key, vector in rows]
                        copy.rows.add(table, rows)
                        counted[table] += len(rows)
                copy.rebuild_full_text()
            sources = {name: source for name, source in SOURCES.items() if source in COLUMNS}
            if any(made.counts[name] != counted[source] for name, source in sources.items()):
                raise BackupDamagedError(
                    f"{self.place} {made.id}", "its counts are not those of its rows"
                )
            yield copy, documents

    def drop_leftovers(self) -> None:
        """Delete what a killed process left of its work on copies; call it inside `exclusive`."""
        with self._using() as own:
            left = own.query(
                "SELECT owner FROM owners WHERE starts_with(owner, %(owner)s || %(aside)s)",
                aside=_ASIDE,
            )
        for (owner,) in left:
            self._drop_home(owner)

    def _drop_home(self, owner: str) -> None:
        with closing(Database(self._url, owner)) as database, database.transaction():
            Upkeep(database, self._days).empty()
            for table in ("documents", "backups", "numbers", "owners"):
                database.execute(f"DELETE FROM {table} WHERE owner = %(owner)s")

    def remove(self) -> bool:
        """Delete all of the home for good; False while what others read still needs its rows.

        Raises:
            StoreError: The database cannot do it.
        """
        with self._using() as database, self.exclusive(0):
            self.drop_leftovers()
            self._drop_home(self._owner)
            return Upkeep(database, self._days).erase()

    @contextmanager
    def replacing(self, copy_id: str) -> Iterator[tuple[Repository, dict[str, bytes]]]:
        """Keep others from writing during the block, then put what a copy holds in the home's place.

        It happens at once, also for those who have the home open, and ids go on where they ended in any
        case. When an error leaves the block, the home stays as it was.

        Raises:
            BackupDamagedError: It is not whole.
            StoreBusyError: Another process kept the lock of the home.
            StoreError: The home cannot be written, or the copy not read.
        """
        (made,) = [each for each in self.list_copies() if each.id == copy_id]
        with (
            self._aside(made) as (copy, documents),
            closing(self._opened(self._owner)) as own,
            own.recording(),
        ):
            with self._using(own):
                yield copy, documents
            own.empty()
            own.rows.continue_ids(copy.rows.last_ids())
            for table in COLUMNS:
                for page in pages(copy.rows, table):
                    own.rows.add(table, page)
            own.rebuild_full_text()

    def _lines(self, copy_id: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of a copy but the last, whose digest is compared.

        Raises:
            BackupDamagedError: It is not whole.
            SchemaTooNewError: A later soulkeep wrote it.
        """
        digest, place = hashlib.sha256(), f"{self.place} {copy_id}"
        unpacking, rest = zlib.decompressobj(wbits=31), b""
        try:
            for number in count():
                with self._using() as database:
                    rows = database.query(_PART, backup=copy_id, number=number)
                if not rows:
                    break
                *lines, rest = (rest + unpacking.decompress(rows[0][0])).split(b"\n")
                for written in lines:
                    line = json.loads(written)
                    if "digest" in line:
                        if line["digest"] == digest.hexdigest():
                            return
                        raise BackupDamagedError(place, "it is not what was written")
                    digest.update(written)
                    if line.get("schema", 0) > len(STEPS):
                        raise SchemaTooNewError(place, line["schema"], len(STEPS))
                    yield line
        except (zlib.error, ValueError) as error:
            raise BackupDamagedError(place, str(error)) from error
        raise BackupDamagedError(place, "it ends too soon, or was changed")


def _packed(lines: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield lines, and one with the digest of all, packed and in parts."""
    packing, digest, waiting = zlib.compressobj(3, wbits=31), hashlib.sha256(), b""
    for line in lines:
        written = json.dumps(line, default=_encoded).encode()
        digest.update(written)
        waiting += packing.compress(written + b"\n")
        if len(waiting) >= PART:
            yield waiting
            waiting = b""
    last = json.dumps({"digest": digest.hexdigest()}).encode() + b"\n"
    yield waiting + packing.compress(last) + packing.flush()


def pages(rows: Rows, table: str) -> Iterator[list[Sequence[Any]]]:
    """Yield the rows of a table, so many at a time."""
    after: tuple[Any, ...] = ()
    while page := rows.read(table, after):
        yield page
        after = tuple(page[-1][: len(COLUMNS[table][0])])


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
