"""Copies of a home as files, and such a copy in its place.

A copy is one file of JSON lines: what it is, then pages of rows, then a digest of all before it. To be
changed or put in place it becomes a home of its own beside the one that it is of, for that long.
"""

import base64
import gzip
import hashlib
import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from soulkeep.days import Days
from soulkeep.disk import sync_file
from soulkeep.errors import BackupDamagedError, SchemaTooNewError, StoreBusyError
from soulkeep.progress import tell
from soulkeep.repository import Repository, Rows
from soulkeep.repository.postgres import PostgresRepository
from soulkeep.repository.postgres.database import Database
from soulkeep.repository.postgres.documents import DocumentRows
from soulkeep.repository.postgres.schema import STEPS
from soulkeep.repository.postgres.upkeep import SOURCES, Upkeep
from soulkeep.repository.values import COLUMNS

FILE = "store.jsonl.gz"

_ASIDE = "\n"
"""Between the owner of a home and what a copy of it is called: no home has it in its name."""


@dataclass(slots=True)
class Snapshot:
    """A home as it is at one moment, however others go on writing, with its counts of rows."""

    _repository: PostgresRepository
    counts: Mapping[str, int]

    def copy_to(self, folder: Path) -> None:
        """Write it into a folder, as one file that is complete.

        Raises:
            StoreError: The home cannot be read.
            OSError: The file cannot be written.
        """
        rows = self._repository.rows
        about = {"schema": len(STEPS), "counts": dict(self.counts), "ids": rows.last_ids()}
        digest = hashlib.sha256()
        path = folder / FILE
        with path.open("xb") as raw, gzip.open(raw, "wb", compresslevel=3) as file:
            path.chmod(0o600)
            tables = ({"table": table, "rows": page} for table in COLUMNS for page in pages(rows, table))
            for line in chain([about], tables):
                tell("Copying the store")
                written = json.dumps(line, default=_encoded).encode() + b"\n"
                digest.update(written)
                file.write(written)
            file.write(json.dumps({"digest": digest.hexdigest()}).encode() + b"\n")
        sync_file(path)


class PostgresCopies:
    """Copies of the home of one owner.

    `texts` are its documents: inside `snapshot` those of that moment, and inside `replacing` written
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
    def snapshot(self) -> Iterator[Snapshot]:
        """Hold on to the present state of the home during the block; others can write meanwhile.

        Raises:
            StoreError: It cannot be read.
        """
        with (
            closing(self._opened(self._owner)) as repository,
            repository.snapshot(),
            self._using(repository),
        ):
            yield Snapshot(repository, repository.count_rows())

    def _opened(self, owner: str) -> PostgresRepository:
        return PostgresRepository(self._url, owner, self._days)

    def examine(self, folder: Path) -> tuple[int, dict[str, int]]:
        """Return the schema version and the counts of rows of a copy, having read all of it.

        Raises:
            BackupDamagedError: It is not whole, or no copy.
            SchemaTooNewError: A later soulkeep wrote it.
        """
        counted: Counter[str] = Counter()
        about: dict[str, Any] = {}
        for line in _lines(folder / FILE):
            about = about or line
            counted[line.get("table", "")] += len(line.get("rows", ()))
        expected = {name: counted[source] for name, source in SOURCES.items() if source in COLUMNS}
        counts = about["counts"]
        if any(counts[name] != count for name, count in expected.items()):
            raise BackupDamagedError(folder / FILE, "its counts are not those of its rows")
        return about["schema"], counts

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Repository]:
        """Open a copy to change it; after the block its file is complete again.

        Raises:
            StoreError: It cannot be opened or written.
        """
        with self._aside(folder) as copy:
            yield copy
            (folder / FILE).unlink()
            with copy.snapshot():
                Snapshot(copy, copy.count_rows()).copy_to(folder)

    @contextmanager
    def _aside(self, folder: Path) -> Iterator[PostgresRepository]:
        """Make a home of a copy for the block; what a killed process left of others goes first."""
        with ExitStack() as stack:
            own = stack.enter_context(closing(Database(self._url, self._owner)))
            holder = own.server.sole_holder(f"{self._owner}{_ASIDE}copies")
            if not stack.enter_context(holder):
                raise StoreBusyError(self.place)
            left = own.query(
                "SELECT owner FROM owners WHERE starts_with(owner, %(owner)s || %(aside)s)",
                aside=_ASIDE,
            )
            for (owner,) in left:
                self._drop(owner)
            aside = f"{self._owner}{_ASIDE}{secrets.token_hex(8)}"
            stack.callback(self._drop, aside)
            copy = stack.enter_context(closing(self._opened(aside)))
            with copy.recording():
                for line in _lines(folder / FILE):
                    if "ids" in line:
                        copy.rows.continue_ids(line["ids"])
                    else:
                        copy.rows.add(line["table"], line["rows"])
                copy.rebuild_full_text()
            yield copy

    def _drop(self, owner: str) -> None:
        with closing(Database(self._url, owner)) as database, database.transaction():
            Upkeep(database, self._days).empty()
            database.execute("DELETE FROM documents WHERE owner = %(owner)s")
            database.execute("DELETE FROM numbers WHERE owner = %(owner)s")
            database.execute("DELETE FROM owners WHERE owner = %(owner)s")

    def is_there(self) -> bool:
        """Whether the home has rows."""
        with closing(self._opened(self._owner)) as repository:
            return any(repository.count_rows().values())

    def remove(self) -> None:
        """Delete all rows of the home."""
        self._drop(self._owner)

    def keep_files(self, folder: Path) -> bool:
        """Return False: a home in a database has no files of its own."""
        return False

    @contextmanager
    def replacing(self, folder: Path, *, continuing: bool) -> Iterator[Repository]:
        """Keep others from writing during the block, then put what a copy holds in the home's place.

        It happens at once, also for those who have the home open, and ids go on where they ended in any
        case. When an error leaves the block, the home stays as it was.

        Raises:
            StoreBusyError: Another process kept the lock of the home.
            StoreError: The home cannot be written, or the copy not read.
        """
        with self._aside(folder) as copy, closing(self._opened(self._owner)) as own, own.recording():
            with self._using(own):
                yield copy
            own.empty()
            own.rows.continue_ids(copy.rows.last_ids())
            for table in COLUMNS:
                for page in pages(copy.rows, table):
                    own.rows.add(table, page)
            own.rebuild_full_text()


def pages(rows: Rows, table: str) -> Iterator[list[Sequence[Any]]]:
    """Yield the rows of a table, so many at a time."""
    after: tuple[Any, ...] = ()
    while page := rows.read(table, after):
        yield page
        after = tuple(page[-1][: len(COLUMNS[table][0])])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a copy but the last, whose digest is compared.

    Raises:
        BackupDamagedError: It is not whole, or no copy.
        SchemaTooNewError: A later soulkeep wrote it.
    """
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") as file:
            for written in file:
                line = json.loads(written)
                if "digest" in line:
                    if line["digest"] == digest.hexdigest():
                        return
                    break
                digest.update(written)
                if line.get("schema", 0) > len(STEPS):
                    raise SchemaTooNewError(path, line["schema"], len(STEPS))
                if line.get("table") == "vec_memories":
                    line["rows"] = [(i, base64.b64decode(vector)) for i, vector in line["rows"]]
                yield line
    except (OSError, EOFError, ValueError) as error:
        raise BackupDamagedError(path, str(error)) from error
    raise BackupDamagedError(path, "it ends too soon, or was changed")


def _encoded(vector: bytes) -> str:
    return base64.b64encode(vector).decode()
